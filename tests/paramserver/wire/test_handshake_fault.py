"""What is wrong with the other end of TLS, told by what libraries say of it."""

import pytest

from paramserver.wire.tls import CLOSED, FAULTS, handshake_fault


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired", 2),
        ("certificate verify failed: Hostname mismatch, not valid for 'b'", 5),
        ("Hostname Verification Check failed.", 5),
        ("certificate verify failed: self-signed certificate in certificate chain", 6),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", 0),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", 1),
        ("Connection refused", None),
        ("Socket closed", None),
    ],
)
def test_what_libraries_say_of_a_handshake(said: str, told: int | None):
    assert handshake_fault(said) == ("" if told is None else list(FAULTS.values())[told])


def test_a_closed_connection_is_explained_to_who_shows_no_certificate():
    assert handshake_fault("Socket closed", shows_certificate=False) == CLOSED
    assert handshake_fault("Connection refused", shows_certificate=False) == ""
