"""A compiled step is the eager step: losses, gradients, learned state, random stream; or it says why it is not taken.

What is captured is tested for every objective and every estimator with a builder that interprets the graph, in float64;
TorchInductor's own code on a few, as each takes seconds to build, and on all of them with `pytest -m proof`.
"""

import json
import warnings
from itertools import count

import pyro
import pyro.distributions as dist
import pytest
import torch
from compiled_cases import ROWS, WIDTH, data, interpreted, legal_cells, legal_estimators, losses, make, pair
from torch import nn
from training_runs import training, weights

from pathscore.command import cli
from pathscore.compiling.compiled_elbo import AUTO_STEPS, CompiledELBO, EagerWarning, compiled
from pathscore.compiling.inductor import build
from pathscore.elbos import KLWeight, make_elbo
from pathscore.errors import NumericsError
from pathscore.estimators import ESTIMATORS
from pathscore.runs.training import Loop
from pathscore.svi import SVI

SHORT = ["--steps", "30", "--layers", "3", "--hidden", "8", "--eval-samples", "10", "--batch-size", "700"]


def close(ours, theirs, tolerance: float) -> bool:
    return all(abs(a - b) <= tolerance * max(1.0, abs(b)) for a, b in zip(ours, theirs, strict=True))


def same_state(a: SVI, b: SVI, tolerance: float) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(
        torch.allclose(ours[name], theirs[name], rtol=tolerance, atol=tolerance) for name in ours
    )


@pytest.mark.usefixtures("float64")
class TestCapture:
    """Graphs without a compiler: the operations that were followed are those of the eager step."""

    @pytest.mark.parametrize(("elbo", "latent", "particles"), legal_cells())
    def test_every_objective(self, elbo, latent, particles):
        eager, ours, theirs, found = pair(8, interpreted, elbo=elbo, latent=latent, particles=particles)
        assert ours.compiled.built, ours.compiled.refused
        assert close(found, theirs, 1e-10)
        assert same_state(ours, eager, 1e-8)

    @pytest.mark.parametrize(("name", "latent"), legal_estimators())
    def test_every_estimator_and_what_it_learns(self, name, latent):
        how = {"estimators": name, "latent": latent, "particles": max(2, ESTIMATORS[name].min_particles)}
        eager, ours, theirs, found = pair(8, interpreted, **how)
        assert ours.compiled.built, ours.compiled.refused
        assert close(found, theirs, 1e-10)
        assert same_state(ours, eager, 1e-8)

    def test_one_estimator_a_site_on_two_layers(self):
        how = {"estimators": "z1=disarm,z2=rebar", "latent": "bernoulli", "layers": (4, 3), "elbo": "tracegraph"}
        eager, ours, theirs, found = pair(8, interpreted, **how)
        assert ours.compiled.built and close(found, theirs, 1e-10) and same_state(ours, eager, 1e-8)


class TestTorchInductor:
    """Compiled code, 100 steps from the same seed."""

    @pytest.mark.parametrize(
        "how",
        [
            {"elbo": "tracegraph", "latent": "bernoulli"},
            {"estimators": "disarm", "latent": "bernoulli"},
            pytest.param({"elbo": "tracegraph"}, marks=pytest.mark.proof),
            pytest.param({"estimators": "rebar", "latent": "bernoulli", "elbo": "tracegraph"}, marks=pytest.mark.proof),
            pytest.param({"elbo": "vimco", "latent": "bernoulli", "particles": 5}, marks=pytest.mark.proof),
            pytest.param({"elbo": "dreg", "particles": 5}, marks=pytest.mark.proof),
            pytest.param({"elbo": "meanfield"}, marks=pytest.mark.proof),
            pytest.param({"elbo": "enum", "latent": "categorical", "layers": (2,)}, marks=pytest.mark.proof),
        ],
        ids=str,
    )
    def test_a_hundred_losses_to_1e_4(self, how):
        _, ours, theirs, found = pair(100, **how)
        assert ours.compiled.built, ours.compiled.refused
        assert close(found, theirs, 1e-4), max(abs(a - b) for a, b in zip(found, theirs, strict=True))

    @pytest.mark.parametrize("latent", ["normal", pytest.param("bernoulli", marks=pytest.mark.proof)])
    def test_in_float64_to_1e_10(self, latent, float64):
        estimators = "disarm" if latent == "bernoulli" else None
        _, ours, theirs, found = pair(100, latent=latent, estimators=estimators)
        assert ours.compiled.built and close(found, theirs, 1e-10)

    @pytest.mark.proof
    @pytest.mark.parametrize(("name", "latent"), legal_estimators())
    def test_every_estimator(self, name, latent):
        how = {"estimators": name, "latent": latent, "particles": max(2, ESTIMATORS[name].min_particles)}
        _, ours, theirs, found = pair(20, **how)
        assert ours.compiled.built, ours.compiled.refused
        assert close(found, theirs, 1e-4)


class TestShapes:
    def test_a_smaller_last_batch_runs_eagerly_and_nothing_is_built_for_it(self):
        built = []
        svi = make(builder=lambda capture, inputs: built.append(inputs[0].shape) or capture.graph)
        losses(svi, [data(), data(3), data(), data(3), data(), data(5), data()])
        assert built == [(ROWS, WIDTH)]

    def test_the_first_shape_gets_the_graph_though_another_comes_second(self):
        built = []
        svi = make(builder=lambda capture, inputs: built.append(inputs[0].shape) or capture.graph)
        losses(svi, [data(), data(3), data(3), data(), data(3)])
        assert built == [(ROWS, WIDTH)]

    def test_as_many_graphs_as_are_asked_for(self):
        svi = make(builder=interpreted)
        svi.compiled.graphs = 2
        losses(svi, [data(), data(3), data(5), data(), data(3), data(5)])
        assert len(svi.compiled.built) == 2

    def test_a_program_with_an_argument_that_is_no_tensor(self):
        def model(x, scale=1.0):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, scale))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x, scale=1.0):
            loc = pyro.param("loc", torch.tensor(0.1))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, 1.0))

        svi = SVI(model, guide, "adam", CompiledELBO(make_elbo("trace"), builder=interpreted))
        for scale in (1.0, 1.0, 1.0, 2.0):
            svi.step(torch.ones(4), scale=scale)
        assert len(svi.compiled.built) == 1


class TestFallingBack:
    """Whatever cannot be one graph runs eagerly and says why, in one warning."""

    def eagerly(self, model, guide, reason: str, steps: int = 4, builder=interpreted) -> SVI:
        x = torch.ones(5)
        svi = SVI(model, guide, "adam", CompiledELBO(make_elbo("trace"), builder=builder), require_gradients=False)
        with pytest.warns(EagerWarning, match=reason) as seen:
            for _ in range(steps):
                svi.step(x)
        assert len(seen) == 1 and not svi.compiled.built and svi.steps == steps
        return svi

    @staticmethod
    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    @staticmethod
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def test_a_number_taken_out_of_a_tensor(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                if z.mean().item() > 0:
                    z = 2 * z
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        self.eagerly(model, self.guide, "takes a number out of a tensor")

    def test_a_branch_on_a_tensor_is_noticed_when_it_turns(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                if z.mean() > 0:
                    z = 2 * z
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        self.eagerly(model, self.guide, "its course depends on the values of tensors", steps=30)

    def test_a_program_that_changes_with_a_counter(self):
        calls = count()  # which nothing can put back

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0 if next(calls) < 4 else 3.0), obs=x)

        self.eagerly(model, self.guide, "its graph and the program disagree", steps=12)

    def test_a_program_that_counts_in_a_list(self):
        calls = []

        def model(x):
            calls.append(1)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0 if len(calls) < 6 else 3.0), obs=x)

        self.eagerly(model, self.guide, "it adds to a list [(]model.calls[)]", steps=12)

    def test_no_compiler(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        self.eagerly(self.model, self.guide, "no C[+][+] compiler: install g[+][+]", builder=build)

    def test_a_compiler_that_fails(self, monkeypatch, tmp_path):
        broken = tmp_path / "c++"
        broken.write_text("#!/bin/sh\necho broken compiler >&2\nexit 1\n")
        broken.chmod(0o755)
        from torch._inductor import config

        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
        with config.patch({"cpp.cxx": (str(broken),)}):
            self.eagerly(self.model, self.guide, "TorchInductor: ", builder=build)

    @pytest.mark.parametrize("fault", ["sign", "scale", "loss", "noise", "state"])
    def test_a_graph_that_computes_something_else_is_never_used(self, fault):
        """Planted faults of the compiler."""

        def faulty(capture, inputs):
            def run(*tensors):
                out = list(capture.graph(*tensors))
                if fault == "sign":
                    out[-1] = -out[-1]
                if fault == "scale":
                    out[-1] = out[-1] * 1.01
                if fault == "loss":
                    out[0] = out[0] + 1e-2
                if fault == "noise":
                    torch.rand(1)
                if fault == "state":
                    capture.written[0].add_(0.1)
                return out

            return run

        svi = make(estimators="score-avg", latent="bernoulli", builder=faulty)
        with pytest.warns(EagerWarning, match="disagree at use 1"):
            found = losses(svi, [data()] * 4)
        assert not svi.compiled.built
        assert found == losses(make(estimators="score-avg", latent="bernoulli"), [data()] * 4)

    def test_a_loss_that_is_not_finite_names_its_site_and_moves_nothing(self):
        svi = make(builder=interpreted)
        losses(svi, [data()] * 4)
        before = weights(svi)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(NumericsError, match=r"step 5: .*'z1'"):
                svi.step(data() * float("nan"))
        assert all(torch.equal(t, before[name]) for name, t in weights(svi).items())


class TestElsewhere:
    def test_as_an_objective_of_pyros_own_svi(self, float64):
        model, guide = make().model, make().guide
        found = {}
        for name, elbo in {
            "eager": make_elbo("trace"),
            "compiled": CompiledELBO(make_elbo("trace"), builder=interpreted),
        }.items():
            pyro.clear_param_store()
            torch.manual_seed(0)
            for module in (model, guide):
                for layer in module.modules():
                    if isinstance(layer, nn.Linear):
                        layer.reset_parameters()
            svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
            found[name] = losses(svi, [data()] * 6)
        assert close(found["compiled"], found["eager"], 1e-10)

    def test_a_pyro_optimiser(self, float64):
        runs = [make(spec=pyro.optim.Adam({"lr": 0.01}), builder=builder) for builder in (None, interpreted)]
        theirs, ours = (losses(svi, [data()] * 6) for svi in runs)
        assert runs[1].compiled.built and close(ours, theirs, 1e-10)

    def test_auto_depends_on_the_plan_alone(self):
        elbo, cpu = make_elbo("trace"), torch.device("cpu")
        assert compiled(elbo, "auto", AUTO_STEPS["cpu"] - 1, cpu) is elbo
        assert isinstance(compiled(elbo, "auto", AUTO_STEPS["cpu"], cpu), CompiledELBO)
        assert isinstance(compiled(elbo, "on", 1, cpu), CompiledELBO)
        assert compiled(elbo, "off", 10**9, cpu) is elbo


class TestResume:
    """A compiled run goes on bit for bit, wherever it was interrupted: before a full batch or a smaller last one."""

    @pytest.mark.parametrize("estimators", [None, "rebar"])
    @pytest.mark.parametrize("at", [1, 2, 6, 7, 9])
    def test_from_any_step(self, estimators, at, tmp_path):
        self.interrupted_equals_whole(tmp_path, at, interpreted, estimators)

    @pytest.mark.proof
    @pytest.mark.parametrize("at", [1, 6, 9])
    def test_with_built_code(self, at, tmp_path):
        self.interrupted_equals_whole(tmp_path, at, build, "rebar")

    def interrupted_equals_whole(self, tmp_path, at: int, builder, estimators) -> None:
        def loop(directory, steps):
            directory.mkdir(exist_ok=True)
            svi = make(estimators=estimators, latent="bernoulli" if estimators else "normal", builder=builder)
            return Loop(svi, data(50, seed=9), training(steps), directory, KLWeight(), {})

        whole = loop(tmp_path / "whole", 16)
        whole.run()
        loop(tmp_path / "parts", at).run()
        rest = loop(tmp_path / "parts", 16)
        rest.resume()
        rest.run()
        assert whole.svi.compiled.built and rest.svi.compiled.built
        assert all(torch.equal(t, weights(whole.svi)[name]) for name, t in weights(rest.svi).items())


class TestCommandLine:
    def test_the_same_result_and_a_line_that_says_so(self, tmp_path, capsys):
        found = {}
        for when in ("off", "on"):
            assert cli.main(["train", *SHORT, "--compile", when, "--out", str(tmp_path / when)]) == 0
            found[when] = json.loads((tmp_path / when / "summary.json").read_text())["test_elbo"]
            assert ("one compiled graph" in capsys.readouterr().out) == (when == "on")
        assert found["on"] == pytest.approx(found["off"], rel=1e-4)

    @pytest.mark.filterwarnings("always::pathscore.compiling.compiled_elbo.EagerWarning")
    def test_why_it_runs_eagerly_is_one_line(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert cli.main(["train", *SHORT, "--compile", "on", "--out", str(tmp_path / "run")]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "compil" in line]
        assert lines == [
            "pathscore: --compile: the program runs eagerly: no C++ compiler: install g++, or name one in the "
            "environment variable CXX"
        ]

    def test_bfloat16_products_train_and_are_left_behind(self, tmp_path):
        words = ["train", *SHORT, "--matmul-precision", "medium", "--compile", "on", "--out", str(tmp_path / "run")]
        assert cli.main(words) == 0
        assert torch.get_float32_matmul_precision() == "highest"
