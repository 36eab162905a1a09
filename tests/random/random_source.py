"""Random programs as Pyro code: `source(program) -> str`, and `run(program, data, copies) -> model, guide`.

The text is what a person would write: plates made first, then one `pyro.sample` for each site, with its parameters in
Pyro's store and observed values in `data`.
"""

from itertools import groupby

from random_laws import JACOBIAN, KINDS
from random_program import Frame, Program, Read, Site

HEAD = """import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch.nn.functional import softplus

SPREAD = torch.tensor([1.0, -0.7, 0.4])
"""


def source(program: Program) -> str:
    """The whole program as text."""
    return HEAD + "".join(f"\n\n{_function(program, side)}" for side in ("model", "guide")) + "\n"


def run(program: Program, data: dict, copies: int):
    """Model and guide, whose parameters are in Pyro's store."""
    space: dict = {"data": data, "COPIES": copies}
    exec(compile(source(program), f"<program {program.seed}>", "exec"), space)
    return space["model"], space["guide"]


def _function(program: Program, side: str) -> str:
    lines = [f"def {side}():"]
    if not program.bare:
        lines.append(f'    copies = pyro.plate("copies", COPIES, dim={-program.depth - 1})')
    lines += [f"    {_made(f)}" for f in program.frames if f.kind != "range"]
    lines += [f"    {s.name} = {{}}" for s in program.sites(side) if not s.observed and _loop(s)]
    for frames, sites in groupby(program.sites(side), key=lambda s: s.frames):
        lines += _block(program, side, frames, list(sites))
    return "\n".join(lines)


def _made(frame: Frame) -> str:
    if frame.looped:
        return f'{frame.name}_plate = pyro.plate("{frame.name}", {frame.size})'
    subsample = ""
    if frame.full > frame.size:
        subsample = f"subsample_size={frame.size}, " if frame.redrawn else f"subsample=torch.arange({frame.size}), "
    return f'{frame.name} = pyro.plate("{frame.name}", {frame.full}, {subsample}dim={frame.dim})'


def _block(program: Program, side: str, frames: tuple[Frame, ...], sites: list[Site]) -> list[str]:
    """The consecutive sites of one path of frames."""
    lines, indent = [], "    "
    heads = ([] if program.bare else ["with copies:"]) + [_head(f) for f in frames]
    for head in heads:
        lines.append(indent + head)
        indent += "    "
    for site in sites:
        lines += [indent + line for line in _statement(program, side, site)]
    return lines


def _head(frame: Frame) -> str:
    if frame.kind == "range":
        return f"for {frame.name} in range({frame.size}):"
    if frame.kind == "sequential":
        return f"for {frame.name} in {frame.name}_plate:"
    return f"with {frame.name} as kept:" if frame.redrawn else f"with {frame.name}:"


def _loop(site: Site) -> Frame | None:
    return next((f for f in site.frames if f.looped), None)


def _kept(site: Site) -> str:
    """The index of what belongs to a site's loop and to the members that its plate drew."""
    index = f"[{loop.name}]" if (loop := _loop(site)) else ""
    return index + ("[kept]" if any(f.redrawn for f in site.frames) else "")


def _statement(program: Program, side: str, site: Site) -> list[str]:
    law, loop = site.law(side), _loop(site)
    key = f'pyro.param("{"q" if side == "guide" else "p"}.{site.name}.%s"){_kept(site)}'
    s, r = key % "s" + _moved(program, side, site), key % "r"
    name = f'f"{site.name}_{{{loop.name}}}"' if loop else f'"{site.name}"'
    target = f"{site.name}[{loop.name}]" if loop else site.name
    event = ".to_event(1)" if site.width else ""
    lines = [f"s = {s}"]
    if law.how == "factor":
        lines.append(f"pyro.factor({name}, s)")
    elif law.how == "auto":
        hidden = f'u = pyro.sample({name} + "_u", dist.Normal(s, 0.5 * torch.exp({r} / 2)){event}{_masked(site)}'
        lines.append(hidden + ', infer={"is_auxiliary": True})')
        value, density = law.text.format(u="u"), JACOBIAN[site.guide].format(u="u")
        lines.append(f"{target} = pyro.sample({name}, dist.Delta({value}, {density}){event}{_masked(site)})")
    elif site.observed:
        obs = f'data["{site.name}"]{_kept(site)}'
        lines.append(f"pyro.sample({name}, {law.text.format(s='s', r=r)}{event}{_masked(site)}, obs={obs})")
    else:
        lines.append(f"{target} = pyro.sample({name}, {law.text.format(s='s', r=r)}{event}{_masked(site)})")
    return _within(site, lines)


def _mask(site: Site) -> str:
    text = f"torch.tensor({list(site.mask)})"
    return text + "[:, None]" * (site.plates[-1].dim == -2)


def _masked(site: Site) -> str:
    return f".mask({_mask(site)})" if site.mask and site.mask_how == "fn" else ""


def _within(site: Site, lines: list[str]) -> list[str]:
    """The statement inside its `poutine.scale` and `poutine.mask`."""
    if site.mask and site.mask_how == "block":
        lines = [f"with poutine.mask(mask={_mask(site)}):", *("    " + line for line in lines)]
    if site.scale != 1:
        lines = [f"with poutine.scale(scale={site.scale}):", *("    " + line for line in lines)]
    return lines


def _moved(program: Program, side: str, site: Site) -> str:
    """What is added to a site's parameter: tanh of the weighted reads, spread over the event."""
    reads = site.reads(side)
    if not reads:
        return ""
    texts = [_read(program, site, read) for read in reads]
    terms = [f"{read.weight} * {text}" for read, text in zip(reads, texts, strict=True)]
    if site.product and len(reads) > 1:
        terms.append(f"{texts[0]} * {texts[1]}")
    tail = bool(site.law(side).tail)
    spread = {(0, 0): "", (1, 0): " * SPREAD[:2]", (0, 1): " * SPREAD", (1, 1): " * (SPREAD[:2, None] * SPREAD)"}
    lifted = "[..., None]" * (bool(site.width) + tail)
    return f" + torch.tanh({' + '.join(terms)}){lifted}{spread[bool(site.width), tail]}"


def _read(program: Program, site: Site, read: Read) -> str:
    other = next(s for s in program.guide if s.name == read.site)
    loop = _loop(other)
    if read.how == "previous":
        last = _feature(other, f"{other.name}[{loop.name} - 1]")
        return f"({last} if {loop.name} else torch.zeros(()))"
    if read.how == "branch":
        return f"torch.tensor(1.0 if {other.name}.item() > 0.5 else 0.0)"
    summed = [f for f in other.plates if f not in site.frames]
    sums = "".join(f".sum({f.dim}, keepdim=True)" for f in summed) if read.how == "plain" else ".sum()"
    if loop and loop not in site.frames:
        return f"sum({_feature(other, f'{other.name}[j]')}{sums} for j in range({loop.size}))"
    return _feature(other, f"{other.name}[{loop.name}]" if loop else other.name) + sums


def _feature(site: Site, value: str) -> str:
    text = KINDS[site.law("guide").kind].text.format(z=value)
    return f"(({text}) * SPREAD[:2]).sum(-1)" if site.width else f"({text})"
