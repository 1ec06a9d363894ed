"""Whether an address can exist, by its syntax; no DNS, and never a question to its server.

RFC 5321, 5322 and 6531, by email-validator.
"""

from collections.abc import Sequence

from email_validator import EmailNotValidError, validate_email

BLANKS = " \t"  # around an address they are a slip; a line break is an attempt at a header


def normalise(address: str) -> str | None:
    """The address in the one form in which we compare and write it; None when it is invalid.

    The domain becomes lower-case, international names NFC; the case of the local part is kept.
    """
    try:
        return validate_email(
            address.strip(BLANKS), check_deliverability=False, test_environment=True
        ).normalized
    except EmailNotValidError:
        return None


def normalise_many(addresses: Sequence[str | None]) -> list[str | None]:
    """Each address in its normal form; None where there is none or it is invalid."""
    return [None if address is None else normalise(address) for address in addresses]


def fault(address: str) -> str | None:
    """Why an address is invalid, as a sentence; None when it is well-formed."""
    try:
        validate_email(address.strip(BLANKS), check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        return str(error)
    return None
