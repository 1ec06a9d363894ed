import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("users", "k", "rules", "as_of")
    USERS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedScalarFieldContainer[str]
    k: int
    rules: _struct_pb2.Struct
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, users: _Optional[_Iterable[str]] = ..., k: _Optional[int] = ..., rules: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("users", "model", "fallback", "took_ms")
    class TookMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    USERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[UserPicks]
    model: str
    fallback: str
    took_ms: _containers.ScalarMap[str, float]
    def __init__(self, users: _Optional[_Iterable[_Union[UserPicks, _Mapping]]] = ..., model: _Optional[str] = ..., fallback: _Optional[str] = ..., took_ms: _Optional[_Mapping[str, float]] = ...) -> None: ...

class UserPicks(_message.Message):
    __slots__ = ("user_id", "picks")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PICKS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    picks: _containers.RepeatedCompositeFieldContainer[Pick]
    def __init__(self, user_id: _Optional[str] = ..., picks: _Optional[_Iterable[_Union[Pick, _Mapping]]] = ...) -> None: ...

class Pick(_message.Message):
    __slots__ = ("item_id", "title", "rank", "score", "reason", "rung")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    rank: int
    score: float
    reason: str
    rung: str
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ..., reason: _Optional[str] = ..., rung: _Optional[str] = ...) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("campaign_id", "campaign", "user_id", "key")
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    CAMPAIGN_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    campaign_id: str
    campaign: _struct_pb2.Struct
    user_id: str
    key: str
    def __init__(self, campaign_id: _Optional[str] = ..., campaign: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., user_id: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("campaign_id", "user_id", "state", "message_id", "reply")
    CAMPAIGN_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    campaign_id: str
    user_id: str
    state: str
    message_id: str
    reply: str
    def __init__(self, campaign_id: _Optional[str] = ..., user_id: _Optional[str] = ..., state: _Optional[str] = ..., message_id: _Optional[str] = ..., reply: _Optional[str] = ...) -> None: ...
