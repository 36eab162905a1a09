"""`explain`: what a plan will do, as a table a person can read."""

from __future__ import annotations

from pathscore.elbos.plan import Plan


def explain(plan: Plan, costs: str) -> str:
    """One line per latent site (distribution, plates, estimator, rows), the model evaluations of a step, `costs`."""
    header = ("site", "distribution", "plates", "estimator", "unbiased", "KL", "rows")
    lines: list[tuple[str, ...]] = [header]
    for site in plan.sites.values():
        note = "" if site.chosen == "named" else f" ({site.chosen})"
        lines.append(
            (
                site.name,
                site.family,
                ", ".join(site.plates) or "—",
                site.estimator.name + note,
                "yes" if site.estimator.unbiased else "no",
                "analytic" if site.name in plan.analytic else "sampled",
                f"{site.rows * plan.particles}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    table = "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    what_if = plan.rows - plan.particles
    return (
        f"{table}\n{plan.particles} particle{'s' * (plan.particles > 1)} + {what_if} counterfactual rows = {plan.rows} "
        f"model evaluations a step, in one pass; {costs}"
    )
