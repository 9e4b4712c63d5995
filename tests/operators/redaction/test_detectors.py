"""Each shipped detector: what it finds, what it leaves, and what is almost one."""

import pytest

from operators.redaction import detectors as shipped
from operators.redaction.scanner import Rules

RULES = {one.name: Rules([one]) for one in shipped.DEFAULT}
ALL = Rules(shipped.DEFAULT)
A40 = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
T24 = "abcDEF0123456789abcDEF01"
H32 = "0123456789abcdef0123456789abcdef"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dozjgNryP4J3jVmNHl0w5"


def named(detector, text):
    return f"[{detector.name}]"


FOUND = {
    "EMAIL": [
        "alice@example.com",
        "alice.b+tag@mail.example.co.uk",
        "jürgen@müller.de",
        "иван@пример.рф",
        "A_B%C-D@EXAMPLE.ORG",
    ],
    "PHONE": [
        "+14155552671",
        "+1 415 555 2671",
        "+1 (415) 555-2671",
        "+49 (0)30 1234567",
        "0049 30 1234567",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-415-555-2671",
        "030 1234567",
        "0171/1234567",
        "020 7946 0958",
        "01 23 45 67 89",
    ],
    "CREDIT_CARD": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5500005555555559",
        "3782 822463 10005",
        "6011000990139424",
        "30569309025904",
    ],
    "IBAN": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB82 WEST 1234 5698 7654 32",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO93 8601 1117 947",
        "MT84MALT011000012345MTLCAST001S",
        "de89 3704 0044 0532 0130 00",
    ],
    "US_SSN": ["078-05-1120", "078 05 1120", "665-01-0001"],
    "IPV4": ["192.168.1.17", "8.8.8.8", "255.255.255.255", "10.0.0.01"],
    "IPV6": [
        "2001:db8:85a3:8d3:1319:8a2e:370:7348",
        "2001:db8::1",
        "fe80::1",
        "::ffff:192.0.2.128",
        "2001:DB8::A:1",
    ],
    "API_KEY": [
        f"sk-{T24}{T24}",
        f"sk-proj-{T24}_{T24}-x",
        f"sk-ant-api03-{T24}-{T24}AA",
        f"AIza{T24}Sy0123456789a",
        f"ghp_{T24}012345678901",
        f"gho_{T24}",
        f"ghs_{T24}",
        f"github_pat_{T24}_{T24}",
        f"glpat-{T24}",
        "xoxb-123456789012-abcdefGHIJ",
        "xapp-1-A0123-456789-abc",
        f"sk_live_{T24}",
        f"rk_live_{T24}",
        f"sk_test_{T24}",
        f"hf_{T24}abcdef",
        f"npm_{T24}012345678901",
        f"pypi-AgEIcHlwaS5vcmc{T24}",
        f"SK{H32}",
        f"AC{H32}",
        f"SG.{T24[:22]}.{T24}{T24[:19]}",
        f"gsk_{T24}",
        f"dop_v1_{H32}{H32}",
    ],
    "JWT": [JWT, "eyJhbGciOiJIUzI1NiJ9..abcdefgh.ijklmnop.qrstuv"],
    "BEARER": [
        f"Bearer {T24}",
        f"bearer  {T24}==",
        f"Authorization: Bearer {T24}",
        "Authorization: Basic dXNlcjpwYXNz",
        "authorization='token abcdefgh12",
    ],
    "AWS_KEY": [
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        f"aws_secret_access_key = {A40}",
        f'AWS_SECRET_ACCESS_KEY="{A40}',
        f"SecretAccessKey: {A40}",
        f'secret_key": "{A40}',
        f"aws_session_token={A40}{A40}==",
    ],
    "PRIVATE_KEY": [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\r\nb3B\r\n-----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nx\n-----END PGP PRIVATE KEY BLOCK-----",
        "-----BEGIN EC PRIVATE KEY-----\n-----BEGIN EC PRIVATE KEY-----\n"
        "-----END EC PRIVATE KEY-----",
    ],
    "URL_CREDENTIALS": [
        "https://bob:hunter2@example.com",
        "postgres://u:p@ss@db.internal:5432",
        "redis://:secret@localhost:6379",
        f"https://{T24}@github.com",
    ],
}

LEFT = {
    "EMAIL": [
        "alice@", "@example.com", "alice@localhost", "a @ b.com", "user@host.1",
        "@dataclass", "foo(a)@b",
    ],
    "PHONE": [
        "2024-10-11", "01/02/2024 10:30", "1234567", "+1 234", "12:30:45",
        "3.14159265358979", "1,234,567,890", "00:11:22:33", "ISBN 978-3-16-148410-0",
    ],
    "CREDIT_CARD": [
        "4111111111111112", "4111 1111 1111 111", "4444444444444444", "1700000000000",
        "41111111111111110000000", "550e8400-e29b-41d4-a716-446655440000",
    ],
    "IBAN": [
        "DE88370400440532013000", "DE8937040044053201300", "XX89370400440532013000",
        "DE89 3704 0044 0532 0130 001", "MP34 is a file and nothing more",
    ],
    "US_SSN": [
        "000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000",
        "123-456-789", "1078-05-1120", "078-05-11201", "078-05 1120",
    ],
    "IPV4": ["256.1.1.1", "1.2.3", "v3.11.7", "1.2.3.1234", "192,168,1,1"],
    "IPV6": ["12:30:45", "std::vector", "abc::def", "a:b", "::", "1:2:3:4:5:6:7:8:9"],
    "API_KEY": [
        "sk-short", "task-0123456789012345678901", "ghp_short", "AIzaShort",
        "sky-blue-is-the-limit", "hf_hub", "SKILLS", "npm_config_cache", "pypi-name",
        "SG.short.short",
    ],
    "JWT": ["eyJhbGciOiJIUzI1NiJ9", "eyJ.eyJ.x", "xeyJhbGciOiJIUzI1NiJ9.abcdefgh"],
    "BEARER": ["the bearer of news", "Bearer short", "authorization required"],
    "AWS_KEY": [
        "AKIA1234", "akiaiosfodnn7example", A40, "secret key: open sesame",
        "aws_secret_access_key = short",
    ],
    "PRIVATE_KEY": [
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----", "BEGIN PRIVATE KEY", "----------",
    ],
    "URL_CREDENTIALS": [
        "https://example.com/a:b@c", "https://example.com:8080/x", "mailto:a@b",
        "ssh://git@github.com/x", "http://user:@/x",
    ],
}  # fmt: skip


def cases(known):
    return [(name, text) for name, texts in known.items() for text in texts]


@pytest.mark.parametrize(("name", "secret"), cases(FOUND))
def test_what_is_one_is_masked_wholly(name, secret):
    shown = f"[{name}]"
    for before, after in [("", ""), ("see ", " there"), ("(", ")"), ("\n", "\r\n")]:
        text = f"{before}{secret}{after}"
        assert RULES[name].redact(text, named) == f"{before}{shown}{after}"


@pytest.mark.parametrize(("name", "secret"), cases(FOUND))
def test_the_whole_set_masks_it_as_well(name, secret):
    shown = ALL.redact(f"so: {secret} ok", named)
    assert shown.startswith("so: [")
    assert shown.endswith("] ok")
    assert shown.count("[") == 1


@pytest.mark.parametrize(("name", "text"), cases(LEFT))
def test_what_is_almost_one_is_left(name, text):
    for around in (f"see {text} there", f"{text}\n"):
        assert RULES[name].redact(around, named) == around


def test_ordinary_prose_is_left():
    prose = (
        "In 1921, at 12:30, a well-known physicist (b. 1888) said: 'the sea is blue', "
        "e.g. 470 nm, i.e. 3.14 times 10-20 % more; see https://example.com/a?b=c#d or "
        "chapter 4.2.1, pp. 100-120. It cost $1,234.56 in 2024-10-11T12:30:45Z, "
        "version 3.11.7, commit 9fceb02d0ae598e95dc970b74767f19372d61af8, id "
        "550e8400-e29b-41d4-a716-446655440000, #123456, C++'s std::map<int, a::b>."
    )
    assert ALL.redact(prose, named) == prose


def test_ordinary_prose_is_left_where_it_is_cut_off():
    prose = "Let me look at version 3.11.7 of well-known e.g. foo_bar in 2024-10 ('x')"
    for end in range(len(prose)):
        assert ALL.redact(prose[:end], named) == prose[:end]


@pytest.mark.parametrize(
    "digits", ["٤١١١١١١١١١١١١١١١", "４１１１１１１１１１１１１１１１"]
)
def test_only_ascii_digits_make_numbers(digits):
    assert ALL.redact(digits, named) == digits


def test_neighbours_that_are_glued_are_masked_each():
    text = f"alice@example.com\n4111111111111111,{JWT};AKIAIOSFODNN7EXAMPLE"
    assert ALL.redact(text, named) == "[EMAIL]\n[CREDIT_CARD],[JWT];[AWS_KEY]"
