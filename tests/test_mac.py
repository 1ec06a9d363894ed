import hmac

from hypothesis import given
from hypothesis import strategies as st

from reco.mac import Mac


@given(key=st.binary(max_size=130), messages=st.lists(st.binary(max_size=200), max_size=4))
def test_it_gives_the_bytes_of_the_standard_library_message_after_message(key, messages):
    mac = Mac(key)
    assert [mac.digest(m) for m in messages] == [hmac.digest(key, m, "sha256") for m in messages]


def test_the_vector_of_rfc_4231_with_a_key_longer_than_a_block():
    text = b"Test Using Larger Than Block-Size Key - Hash Key First"
    expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    assert Mac(b"\xaa" * 131).digest(text).hex() == expected
