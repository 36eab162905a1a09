"""Rich forms of the lab's table and of explanations: text, HTML, pandas, Axes; and the words for too few replicates."""

import pandas
import pytest

from pathscore import make_elbo
from pathscore.gradients import make_toy, measure
from pathscore.gradients.table import HEADER

TOY = make_toy("bernoulli", 2, seed=0)


def measured(replicates):
    names = ["score", "disarm", "st"]
    return measure(TOY.model, TOY.guide, estimators=names, replicates=replicates, warmup=2, progress=False)


@pytest.fixture(scope="module")
def found():
    return measured(1000)


def test_the_table_has_the_error_of_its_variance(found):
    table = found.to_dataframe()
    assert isinstance(table, pandas.DataFrame) and list(table.index) == ["score", "disarm", "st"]
    row = found["disarm"]
    assert table.total_variance["disarm"] == row.total_variance and table.variance_se["disarm"] == row.variance_se > 0
    assert HEADER[5] == "± s.e." and "± s.e." in str(found)


def test_a_notebook_shows_the_table_and_its_notes(found):
    text = found._repr_html_()
    assert text.startswith("<table>") and text.count("<tr>") == 4 and ">disarm</td>" in text
    assert "max |z|" in text and "reference: exact gradient" in text


def test_the_panel_may_be_given(found):
    from pathscore.diagnostics.palette import LIGHT, panels

    _, (left, _) = panels(LIGHT, 1, 2)
    assert found.plot(left) is left and left.texts and found.plot() is not left


def test_too_few_replicates_are_no_test_of_bias(found):
    """`st` is biased and found out with 1 000 replicates; of 100 nothing is said."""
    assert "|z| > 4.5" in str(found) and "too few" not in str(found)
    few = measured(100)
    assert "too few replicates to judge a bias" in str(few) and "|z| > 4.5" not in str(few)
    assert "max |z|" in str(found).splitlines()[0] and "max |z|" not in str(few).splitlines()[0]


@pytest.mark.parametrize("estimator", ["disarm", None])
def test_an_explanation_is_text_and_data(estimator):
    said = make_elbo("tracegraph", estimator, max_plate_nesting=1).explain(TOY.model, TOY.guide)
    assert isinstance(said, str) and "z" in said and said.splitlines()[0].startswith("site")
    table = said.to_dataframe()
    assert table.index.name == "site" and set(table.columns) >= {"distribution", "estimator", "unbiased"}
    assert len(table) == len(said.splitlines()) - 2
    assert said._repr_html_().count("<tr>") == len(table) + 1
