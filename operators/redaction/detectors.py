"""The detectors that are shipped; `DEFAULT` is all of them.

Shapes are those that the issuers document, or show. Where a shape is unsure the longer
reading is taken: masking too much is mended by leaving a detector out, a leak is not.
Digits and letters of tokens are ASCII.
"""

from __future__ import annotations

from typing import Final

from .checks import is_card, is_iban, is_ipv6, is_phone, is_us_ssn
from .detector import Detector

# Latin, Greek and Cyrillic letters: what mail addresses are written with. Scripts that
# put no space between words would be held back by the sentence.
_LETTER = r"A-Za-z\u00c0-\u024f\u0370-\u052f"
_LOCAL = rf"[{_LETTER}0-9_.%+-]"
_LABEL = rf"[{_LETTER}0-9_-]"

EMAIL: Final = Detector.regex(
    "EMAIL",
    rf"(?<!{_LOCAL}){_LOCAL}+@(?:{_LABEL}+\.)+[{_LETTER}]{{2,63}}",
    320,
    partial=r"(?s)[^@]+@(?:.*\w)?",
)

PHONE: Final = Detector.regex(
    "PHONE",
    r"(?<![0-9+])(?:"
    r"(?:\+|00)[1-9](?:[ .()/\u00a0-]{0,3}[0-9]){6,14}"
    r"|(?:1[ .-])?(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}"
    r"|0[1-9](?:[ .-][0-9]{2}){4}"
    r"|0[1-9][0-9]{1,3}[ /-][0-9]{3,8}(?:[ -][0-9]{2,8}){0,2}"
    r")(?![0-9])",
    validate=is_phone,
    partial=r"(?:[^0-9]{0,3}[0-9]){7,15}[^0-9]{0,3}",
)

CREDIT_CARD: Final = Detector.regex(
    "CREDIT_CARD",
    r"(?<![0-9])[2-6](?:[ \u00a0-]?[0-9]){12,18}(?![0-9])",
    validate=is_card,
    partial=r"(?:[^0-9]?[0-9]){8,19}[^0-9]?",
)

IBAN: Final = Detector.regex(
    "IBAN",
    r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,29}"
    r"(?![A-Za-z0-9])",
    validate=is_iban,
    partial=r"[A-Za-z]{2}[0-9]{2}[ \u00a0-]?(?:[A-Z]{4}|[0-9])"
    r"(?:[ \u00a0-]?[A-Z0-9]){3,}[ \u00a0-]?",
)

US_SSN: Final = Detector.regex(
    "US_SSN",
    r"(?<![0-9])(?:[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3} [0-9]{2} [0-9]{4})(?![0-9])",
    validate=is_us_ssn,
    partial=r"[0-9]{3}-[0-9]{2}(?:-[0-9]*)?|[0-9]{3} [0-9]{2} [0-9]+",
)

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_V4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"

IPV4: Final = Detector.regex(
    "IPV4",
    rf"(?<![0-9]){_V4}(?![0-9]|\.[0-9])",
    partial=r"(?:[0-9]+\.){3}[0-9]*",
)

IPV6: Final = Detector.regex(
    "IPV6",
    rf"(?<![\w:])(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:[0-9A-Fa-f]{{0,4}}|{_V4})(?![\w:])",
    validate=is_ipv6,
    partial=r"(?:[0-9A-Fa-f]{0,4}:){4,}.*",
)

_TOKEN = "[A-Za-z0-9_-]"
_KEYS: Final = (
    ("sk-", f"{_TOKEN}{{20,}}"),  # OpenAI, Anthropic (sk-ant-), OpenRouter, DeepSeek
    ("AIza", f"{_TOKEN}{{30,}}"),  # Google
    (r"ya29\.", f"{_TOKEN}{{20,}}"),
    ("GOCSPX-", f"{_TOKEN}{{20,}}"),
    ("gh[pousr]_", "[A-Za-z0-9]{20,}"),  # GitHub
    ("github_pat_", "[A-Za-z0-9_]{22,}"),
    ("gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat)-", "[A-Za-z0-9_.-]{20,}"),  # GitLab
    ("xox[abceoprs]-", "[A-Za-z0-9-]{10,}"),  # Slack
    ("xapp-", "[A-Za-z0-9-]{10,}"),
    ("[srp]k_(?:live|test)_", "[A-Za-z0-9]{10,}"),  # Stripe
    ("whsec_", "[A-Za-z0-9+/=]{20,}"),
    ("hf_", "[A-Za-z0-9]{20,}"),  # Hugging Face
    ("npm_", "[A-Za-z0-9]{30,}"),
    ("pypi-", f"{_TOKEN}{{16,}}"),
    ("dckr_[a-z]{2,4}_", f"{_TOKEN}{{20,}}"),  # Docker
    ("(?:SK|AC)", "[0-9a-f]{32,}"),  # Twilio
    (r"SG\.", rf"{_TOKEN}{{16,}}\.{_TOKEN}{{16,}}"),  # SendGrid
    ("key-", "[0-9a-f]{32,}"),  # Mailgun
    ("do[opr]_v1_", "[0-9a-f]{40,}"),  # DigitalOcean
    ("shp(?:at|ca|pa|ss)_", "[0-9A-Fa-f]{32,}"),  # Shopify
    ("gsk_", "[A-Za-z0-9]{20,}"),  # Groq
    ("r8_", "[A-Za-z0-9]{30,}"),  # Replicate
    ("xai-", "[A-Za-z0-9]{20,}"),
    ("pplx-", "[A-Za-z0-9]{20,}"),  # Perplexity
    ("nvapi-", f"{_TOKEN}{{20,}}"),  # NVIDIA
    ("dapi", "[0-9a-f]{32,}"),  # Databricks
    ("sq0(?:atp|csp)-", f"{_TOKEN}{{20,}}"),  # Square
    ("lin_api_", "[A-Za-z0-9]{20,}"),  # Linear
    ("ntn_", "[A-Za-z0-9]{20,}"),  # Notion
    (r"hv[sbr]\.", f"{_TOKEN}{{20,}}"),  # HashiCorp Vault
)

API_KEY: Final = Detector.regex(
    "API_KEY",
    "(?<![A-Za-z0-9])(?:" + "|".join([begins + rest for begins, rest in _KEYS]) + ")",
    256,
    partial="(?:" + "|".join([begins for begins, _ in _KEYS]) + r")[\w.+/=-]{4,}",
)

JWT: Final = Detector.regex(
    "JWT",
    rf"(?<![A-Za-z0-9_-])eyJ{_TOKEN}{{8,}}\.{{1,2}}{_TOKEN}{{5,}}(?:\.{_TOKEN}+){{0,3}}",
    2048,
    partial=r"eyJ[\w-]{8,}(?:[\w.-]*[\w-])?",
)

_CREDENTIAL = "[A-Za-z0-9._~+/=-]"

BEARER: Final = Detector.regex(
    "BEARER",
    r"(?i)(?<![A-Za-z0-9])(?:"
    rf"bearer[ \t]{{1,4}}{_CREDENTIAL}{{20,}}"
    r"|authorization[\"'`]{0,2}[ \t]{0,4}[:=][ \t]{0,4}[\"'`]{0,2}"
    r"(?:(?:basic|bearer|token|apikey|digest|negotiate)[ \t]{1,4})?"
    rf"{_CREDENTIAL}{{8,}}"
    r")",
    256,
    partial=rf"(?i).*(?:[ \t:=\"'`]){_CREDENTIAL}{{8,}}",
)

AWS_KEY: Final = Detector.regex(
    "AWS_KEY",
    r"(?<![A-Za-z0-9])(?:"
    r"A(?:KIA|SIA|BIA|CCA|GPA|IDA|IPA|NPA|NVA|ROA)[A-Z0-9]{16,}"
    r"|(?i:(?:aws[_.-]?)?secret[_.-]?(?:access[_.-]?)?key"
    r"|(?:aws[_.-]?)?session[_.-]?token)"
    r"[\"'`]{0,2}[ \t]{0,4}(?:=>|:=|[:=])[ \t]{0,4}[\"'`]{0,2}"
    r"[A-Za-z0-9/+]{40,}={0,2}"
    r")",
    256,
    partial=r"A[A-Z]{3}[A-Z0-9]{4,}|.*[:=>][ \t]{0,4}[\"'`]{0,2}[A-Za-z0-9/+]{4,}",
)

PRIVATE_KEY: Final = Detector.block(
    "PRIVATE_KEY",
    "-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    "-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    max_len=100,
)

_USER = r"[^\s/?#@:\"'`<>]"
_PASSWORD = r"[^\s/?#\"'`<>]"

URL_CREDENTIALS: Final = Detector.regex(
    "URL_CREDENTIALS",
    r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://"
    rf"(?:{_USER}*:{_PASSWORD}+|{_USER}{{16,}})@[A-Za-z0-9.\[\]:-]*[A-Za-z0-9\]]",
    512,
    partial=rf"[^:]+://{_USER}*:[^0-9]{_PASSWORD}*|[^:]+://{_PASSWORD}+@.*",
)

DEFAULT: Final = (
    EMAIL,
    PHONE,
    CREDIT_CARD,
    IBAN,
    US_SSN,
    IPV4,
    IPV6,
    API_KEY,
    JWT,
    BEARER,
    AWS_KEY,
    PRIVATE_KEY,
    URL_CREDENTIALS,
)
