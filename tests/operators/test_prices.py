"""Prices: which row fits a model, and what usage costs, to the last digit."""

from decimal import Decimal
from fractions import Fraction

import pytest

from operators import Usage
from operators.errors import CompositionError
from operators.price import Price
from operators.prices import Prices, prices_of

ROW = {"input": "1", "output": "2"}


def output_price(table, model, provider=None):
    price = Prices(table).price(model, provider)
    return None if price is None else int(price.output)


TABLE = {
    "gpt": {"input": 1, "output": 1},
    "gpt-4o": {"input": 1, "output": 2},
    ("azure", "gpt-4o"): {"input": 1, "output": 3},
    "gpt-4o-mini*": {"input": 1, "output": 4},
    "gpt-*": {"input": 1, "output": 5},
    ("azure", "gpt-*"): {"input": 1, "output": 6},
}


@pytest.mark.parametrize(
    ("model", "provider", "output"),
    [
        ("gpt", None, 1),
        ("gpt-4o", None, 2),
        ("gpt-4o", "openai", 2),
        ("gpt-4o", "azure", 3),
        ("gpt-4o-2024-08-06", "openai", 2),
        ("gpt-4o-20240806", "openai", 2),
        ("gpt-4o@20240806", "azure", 3),
        ("gpt-4o-mini-x", "openai", 4),
        ("gpt-4o-audio", "openai", 5),
        ("gpt-4o-audio", "azure", 6),
        ("claude", None, None),
        ("GPT", None, None),
        (None, None, None),
        ("", None, None),
    ],
)
def test_the_best_fit_is_the_price(model, provider, output):
    assert output_price(TABLE, model, provider) == output


def test_a_name_is_no_prefix():
    assert output_price({"gpt-4o": ROW}, "gpt-4o-audio") is None


def cost(usage, **row):
    return Price.of({**ROW, **row}).cost(Usage(**usage))


def test_each_kind_of_token_has_its_price():
    row = {
        "input": "1",
        "output": "10",
        "cached_input": "0.1",
        "cache_write_input": "1.25",
        "reasoning": "20",
    }
    usage = {
        "input_tokens": 1000,
        "cached_input_tokens": 600,
        "cache_write_input_tokens": 100,
        "output_tokens": 50,
        "reasoning_tokens": 20,
    }
    expected = 300 + Decimal(60) + 125 + 300 + 400
    assert cost(usage, **row) == expected / 10**6


def test_what_has_no_price_of_its_own_costs_what_it_is_part_of():
    usage = {
        "input_tokens": 10,
        "cached_input_tokens": 5,
        "output_tokens": 10,
        "reasoning_tokens": 5,
    }
    assert cost(usage) == Decimal(30) / 10**6


def test_more_cached_than_there_is_costs_no_less_than_nothing():
    usage = {
        "input_tokens": 10,
        "cached_input_tokens": 50,
        "cache_write_input_tokens": 50,
        "output_tokens": 1,
        "reasoning_tokens": 9,
    }
    assert cost(usage, cached_input="0") == Decimal(2) / 10**6


def test_a_cost_is_exact_however_small_and_however_large():
    tiny = cost({"output_tokens": 1}, output="0.000000000001")
    assert tiny == Decimal("1e-18")
    assert format(tiny, "f") == "0.000000000000000001"
    large = cost({"output_tokens": 10**9 - 1}, output="999999999.999999999999")
    assert Fraction(large) == Fraction((10**9 - 1) * (10**21 - 1), 10**18)
    assert cost({"input_tokens": 3}, input="0.10").as_tuple().exponent == -7


def test_what_is_free_costs_nothing_which_is_not_unknown():
    assert cost({"output_tokens": 5}, output=0) == 0


@pytest.mark.parametrize("amount", [0.15, True, None, [], "x", "NaN", "-1", "1e12"])
def test_an_amount_that_is_not_exact_or_no_price_is_refused(amount):
    with pytest.raises(CompositionError, match="'m'"):
        Prices({"m": {"input": amount, "output": "1"}})


def test_a_float_is_told_how_to_write_it():
    with pytest.raises(CompositionError, match=r'Decimal\("0.15"\) or "0.15"'):
        Prices({"m": {"input": 0.15, "output": "1"}})


def test_a_price_with_too_many_places_is_refused():
    with pytest.raises(CompositionError, match="12 decimal places"):
        Prices({"m": {"input": "0.0000000000001", "output": "1"}})


@pytest.mark.parametrize("row", [{"input": "1"}, {"output": "1"}, {**ROW, "cache": 1}])
def test_a_row_with_a_wrong_field_is_refused(row):
    with pytest.raises(CompositionError):
        Prices({"m": row})


@pytest.mark.parametrize("key", ["", None, 3, ("a",), ("a", ""), ("", "m"), (1, "m")])
def test_a_key_that_names_no_model_is_refused(key):
    with pytest.raises(CompositionError, match="names no model"):
        Prices({key: ROW})


def test_a_price_may_be_a_row():
    price = Price(input=Decimal(1), output=Decimal(2))
    assert Prices({"m": price}).price("m") == price
    with pytest.raises(CompositionError):
        Prices({"m": Price(input=0.5, output=Decimal(2))})


def test_a_mapping_is_a_table():
    assert prices_of(None) is None
    table = Prices({"m": ROW}, currency="EUR")
    assert prices_of(table) is table
    assert prices_of({"m": ROW}).price("m", None).output == 2


def test_a_file_is_read_digit_by_digit(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text(
        '{"currency": "EUR", "prices": ['
        '{"model": "m", "input": 0.15, "output": 0.6000},'
        '{"model": "m", "provider": "p", "input": 1, "output": "2"}]}'
    )
    prices = Prices.load(file)
    assert prices.currency == "EUR"
    assert prices.price("m") == Price(input=Decimal("0.15"), output=Decimal("0.6"))
    assert prices.price("m", "p").output == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"prices": {}}',
        '{"prices": [1]}',
        '{"prices": [{"input": 1, "output": 1}]}',
        '{"prices": [{"model": "m", "input": NaN, "output": 1}]}',
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, text):
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(CompositionError):
        Prices.load(file)
