"""What secrets look like: the forms of the tokens that our providers, and other well-known services, issue.

One expression finds them all in one pass. Every repetition is bounded, possessive or cannot begin again
within what it has passed, so that no text makes the search slow.
"""

import re
from typing import Final

MASK: Final = "***********"
SHAPES: Final = (
    r"[sr]k_(?:live|test)_\w{6,}",  # Stripe
    r"whsec_[\w+/=]{6,}",  # Standard Webhooks
    r"gh[oprsu]_\w{16,}|github_pat_\w{16,}",  # GitHub
    r"\bpat-[a-z0-9]{2,4}-[\w-]{20,}",  # HubSpot
    r"shp(?:at|ca|pa|ss|ua)_\w{16,}",  # Shopify
    r"\bpat\w{10,20}\.[0-9a-f]{32,}|\bkey(?=[A-Za-z0-9]{0,13}[0-9])[A-Za-z0-9]{14}\b",  # Airtable
    r"\b00D[A-Za-z0-9]{12,15}![\w.]{16,}",  # Salesforce
    r"\bSG\.[\w-]{8,}+\.[\w-]{8,}",  # SendGrid
    r"lin_(?:api|oauth)_\w{16,}",  # Linear
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:[a-z]{2,4}\b",  # Marketo
    r"\bAB\d{4,12}\w{20,}",  # QuickBooks
    r"xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}",  # Slack
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # AWS
    r"(?<![\w-])eyJ[\w-]{8,}+\.[\w-]{4,}+(?:\.[\w-]*+){1,3}",  # JWT, and its encrypted form
    r"(?i:\bbearer)\s{1,8}[\w.~+/=-]{6,}",
    r"(?i:\bbasic)\s{1,8}(?![A-Za-z]?[a-z]+\b(?!=))[\w+/=-]{6,}",  # not a plain word: "Basic authentication"
    r"(?<=://)(?:[^/\s:@]*:[^/\s]+|[^/\s?#@]+)(?=@)",  # the login in a URL
)
SECRET_VALUES: Final = re.compile("|".join(SHAPES))
