"""Filter language: parsed trees, matching of configurations, and positions of errors."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench.errors import FilterError
from labbench.filters.parser import (
    And,
    Comparison,
    Filter,
    Not,
    Or,
    matches_config,
    parse,
    parse_timestamp,
    require_config_keys,
    uses_key,
)

CONFIG = {
    "optimizer": "adam",
    "lr": 0.01,
    "batch_size": 64,
    "batchnorm": True,
    "pooling": "none",
    "hidden": [128, 64],
    "layers": ["relu", "tanh"],
    "schedule": None,
    "model.width": 2,
    "not": 1,
}


def only(expression: str) -> Comparison:
    tree = parse(expression)
    assert isinstance(tree, Comparison)
    return tree


def failure(expression: str) -> FilterError:
    with pytest.raises(FilterError) as caught:
        parse(expression)
    return caught.value


def test_terms_separated_by_spaces_must_all_hold() -> None:
    tree = parse(
        "optimizer=adam lr<=0.01 val/loss<0.3 status=finished,diverged tag=best name~conv best(val/loss)<0.2",
    )
    assert isinstance(tree, And)
    assert [(term.function, term.key, term.operator, term.values) for term in tree.terms] == [
        (None, "optimizer", "=", ("adam",)),
        (None, "lr", "<=", (0.01,)),
        (None, "val/loss", "<", (0.3,)),
        (None, "status", "=", ("finished", "diverged")),
        (None, "tag", "=", ("best",)),
        (None, "name", "~", ("conv",)),
        ("best", "val/loss", "<", (0.2,)),
    ]


def test_the_words_of_a_command_line_are_one_expression() -> None:
    assert parse(["optimizer=adam", "or", "lr<0.1"]) == parse("optimizer=adam or lr<0.1")
    assert parse([]) is None
    assert parse(" \t\n") is None


def test_or_binds_less_tightly_and_not_more_tightly_than_and() -> None:
    a, b, c = only("a=1"), only("b=2"), only("c=3")
    assert parse("not a=1 b=2 or c=3") == Or((And((Not(a), b)), c))
    assert parse("not (a=1 (b=2 or c=3))") == Not(And((a, Or((b, c)))))
    assert parse("not not(a=1)and(b=2)") == And((Not(Not(a)), b))
    assert parse("A=1 OR b=2") == Or((only("A=1"), b))


@pytest.mark.parametrize("operator", ["=", "!=", "<", "<=", ">", ">=", "~"])
def test_every_operator_parses_with_and_without_spaces(operator: str) -> None:
    assert (
        parse(f"lr{operator}1e-3")
        == parse(f" lr {operator} 1e-3 ")
        == Comparison("lr", None, operator, (0.001,), ("1e-3",))
    )


@pytest.mark.parametrize("function", ["last", "best", "min", "max", "first", "n"])
def test_functions_take_any_metric_name(function: str) -> None:
    for metric in ("loss", "val/top-1.acc_5", "gpu.0/mem%", "f1[macro]"):
        assert (only(f"{function}({metric})>0.5").function, only(f"{function}( {metric} ) > 0.5").key) == (
            function,
            metric,
        )


def test_the_name_of_a_function_without_parentheses_is_a_key() -> None:
    assert only("n=3").function is None
    assert only("'best(x)'=3").key == "best(x)"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1", 1.0),
        ("-0.5", -0.5),
        ("+1e-4", 1e-4),
        (".5", 0.5),
        ("1.", 1.0),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("true", True),
        ("False", False),
        ("none", None),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("1e", "1e"),
        ("adam", "adam"),
        ("my_task.py:Task", "my_task.py:Task"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("\\none", "none"),
    ],
)
def test_bare_words_have_types_and_quoted_words_are_strings(word: str, value: object) -> None:
    parsed = only(f"x={word}").values[0]
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(float(only("x=nan").values[0]))  # type: ignore[arg-type]


def test_the_text_of_a_value_is_kept_as_written() -> None:
    assert only("key=00123456").texts == ("00123456",)
    assert only("key=12e45678,None").texts == ("12e45678", "None")


def test_quotes_and_backslashes_work_as_in_a_shell() -> None:
    assert only("""name='it is'" \\"so\\" "'\\'""").values == ("""it is "so" \\""",)
    assert only("name=my\\ run").values == ("my run",)
    assert only('"a key"=1').key == "a key"
    assert only("name=''").values == ("",)


def test_a_value_may_contain_operators() -> None:
    assert only("name~lr=0.1,lr=0.01").values == ("lr=0.1", "lr=0.01")


def test_a_list_is_its_compact_json_text() -> None:
    assert only("hidden=[128, 64]").values == ("[128,64]",)
    assert only("hidden=[128,64],[64]").values == ("[128,64]", "[64]")
    assert only("layers=[relu,tanh]").values == ('["relu","tanh"]',)
    assert only('layers=["a b", [1]]').values == ('["a b",[1]]',)


@pytest.mark.parametrize(
    ("expression", "position", "part"),
    [
        ("lr", 2, "operator is missing after `lr`"),
        ("name=my run", 11, "quotes"),
        ("lr=", 3, "value is missing after `lr=`"),
        ("lr=1,,2", 5, "value is missing"),
        ("lr == 1", 3, "did you mean `=`"),
        ("lr=>1", 2, "did you mean `>=`"),
        ("lr<1,2", 4, "one value"),
        ("a=1, b=2", 3, "join terms by a space"),
        ("(a=1", 0, "never closed"),
        ("a=1)", 3, "closes nothing"),
        ("()", 1, "missing before `)`"),
        ("or a=1", 0, "missing before `or`"),
        ("a=1 or or b=1", 7, "missing before `or`"),
        ("a=1 or", 6, "missing here"),
        ("not", 3, "missing here"),
        ("a='x", 2, "never closed"),
        ('a="x\\"', 2, "never closed"),
        ("a=[1,2", 2, "never closed"),
        ("a=[[relu],[tanh]]", 2, "JSON"),
        ("mean(loss)<1", 0, "unknown function `mean`"),
        ("bst(loss)<1", 0, "did you mean `best`"),
        ("a=1 best(loss<1", 4, "one metric"),
        ("best()<1", 0, "one metric"),
        ("best(a b)<1", 0, "one metric"),
        ("best(loss)=low", 11, "is a number"),
        ("best(loss)~1", 11, "is a number"),
        ("lr<none", 3, "with a number"),
        ("lr>=true", 4, "with a number"),
        ("status=finishd", 7, "did you mean `finished`"),
        ("status=finished,dead", 16, "unknown status"),
        ("archived=yes", 9, "true or false"),
        ("started>yesterday", 8, "not a time"),
        ("=1", 0, "missing before `=`"),
        ("a=1 , b=2", 4, "join terms by a space"),
    ],
)
def test_an_error_names_the_problem_and_its_position(expression: str, position: int, part: str) -> None:
    error = failure(expression)
    assert part in error.message
    assert error.position == position
    assert str(error).splitlines()[-1] == "    " + " " * position + "^"


@pytest.mark.parametrize("text", ["(" * 10_000, "not " * 10_000, "a=" + "[" * 100_000, "a=" + "[" * 100_000 + "]"])
def test_excessive_nesting_is_a_filter_error(text: str) -> None:
    assert failure(text).message


pieces = st.sampled_from([*"ab=1,.<>!~()[]'\"\\ \n", " or ", " not ", "best(", "status="])


@settings(deadline=None)
@given(st.lists(pieces, max_size=20).map("".join))
def test_any_text_parses_or_raises_a_filter_error_with_a_position_in_it(text: str) -> None:
    position = 0
    try:
        parse(text)
    except FilterError as error:
        position = error.position
    assert 0 <= position <= len(text)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "optimizer=adam",
        "optimizer=sgd,adam",
        "optimizer!=sgd,rmsprop",
        "optimizer~DA",
        "optimizer<b",
        "lr=0.01",
        "lr=1e-2",
        "lr!=adam",
        "lr<0.1 lr>0.001 lr<=0.01 lr>=0.01",
        "batch_size=64.0",
        "batchnorm=true",
        "batchnorm!=false",
        "pooling=none",
        "schedule=none",
        "hidden=[128,64]",
        "hidden=[64],[128,64]",
        "hidden~128",
        "hidden!=[128]",
        "layers=[relu,tanh]",
        "model.width>1",
        "not=1",
        "not missing=1",
        "missing=1 or lr=0.01",
    ],
)
def test_the_filter_matches_the_config(expression: str) -> None:
    assert matches_config(parse(expression), CONFIG)


@pytest.mark.parametrize(
    "expression",
    [
        "missing=1",
        "missing!=1",
        "missing=none",
        "optimizer=Adam",
        "optimizer!=adam,sgd",
        "optimizer<1",
        "lr='0.01'",
        "lr=adam",
        "lr<adam",
        "lr~0.01",
        "lr=nan",
        "batchnorm=1",
        "batchnorm<2",
        "batchnorm=false",
        "batch_size=true",
        "hidden=128",
        "hidden=[64,128]",
        "schedule!=none",
        "best(lr)<1",
        "not lr=0.01",
        "lr=0.01 missing=1",
    ],
)
def test_the_filter_does_not_match_the_config(expression: str) -> None:
    assert not matches_config(parse(expression), CONFIG)


leaves = st.builds(
    lambda key, operator, value: Comparison(key, None, operator, (float(value),), (str(value),)),
    st.sampled_from(["a", "b", "lacking"]),
    st.sampled_from(["=", "!=", "<", ">="]),
    st.integers(0, 3),
)
trees = st.recursive(
    leaves,
    lambda terms: (
        st.builds(Not, terms)
        | st.builds(And, st.lists(terms, min_size=2, max_size=3).map(tuple))
        | st.builds(Or, st.lists(terms, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=8,
)


def to_text(tree: Filter) -> str:
    if isinstance(tree, Comparison):
        return f"{tree.key}{tree.operator}{tree.texts[0]}"
    if isinstance(tree, Not):
        return f"not ({to_text(tree.term)})"
    return "(" + (" " if isinstance(tree, And) else " or ").join(map(to_text, tree.terms)) + ")"


@settings(deadline=None)
@given(trees)
def test_a_tree_written_as_text_parses_to_the_same_tree(tree: Filter) -> None:
    assert parse(to_text(tree)) == tree


@settings(deadline=None)
@given(trees, st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 3)))
def test_not_inverts_every_filter(tree: Filter, config: dict[str, int]) -> None:
    assert matches_config(Not(tree), config) is not matches_config(tree, config)


@settings(deadline=None)
@given(st.lists(st.integers() | st.text(max_size=3), max_size=4))
def test_every_list_can_be_written_in_a_filter(items: list[object]) -> None:
    assert matches_config(parse(f"x={json.dumps(items)}"), {"x": items})


def test_an_empty_filter_matches_every_config() -> None:
    assert matches_config(parse(""), CONFIG)


def test_uses_key_ignores_the_metrics_of_functions() -> None:
    assert uses_key(parse("lr<1 or not (archived=true)"), "archived")
    assert not uses_key(parse("best(archived)<1"), "archived")
    assert not uses_key(None, "archived")


def test_a_filter_on_configs_refuses_unknown_keys() -> None:
    def problem(expression: str) -> FilterError:
        tree = parse(expression)
        assert tree is not None
        with pytest.raises(FilterError) as caught:
            require_config_keys(tree, expression, CONFIG.keys())
        return caught.value

    error = problem("lr<0.1 (optimzer=adam)")
    assert error.position == 8
    assert "did you mean `optimizer`?" in str(error)
    assert "only configuration keys" in str(problem("status=finished"))
    assert "best(lr)" in str(problem("best(lr)<1"))


def test_times_without_a_zone_are_local() -> None:
    assert parse_timestamp("1970-01-02T00:00:00+00:00") == 86400.0
    assert parse_timestamp("2026-11-30") < parse_timestamp("2026-11-30T00:01")
    with pytest.raises(ValueError, match="year"):
        parse_timestamp("0001-01-01")
