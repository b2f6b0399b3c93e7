"""Every RPC that Google's clients know is answered, and where it is not built, in a sentence."""

import grpc
import pytest
from google.cloud.bigtable_admin_v2.services.bigtable_instance_admin.transports import (
    BigtableInstanceAdminGrpcTransport,
)
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport

pytestmark = pytest.mark.hayloft_only("the emulator dies of six")

NOT_TO_COME = ("Query", "LogicalView", "MaterializedView", "SchemaBundle", "Snapshot", "MemoryLayer")


class Recorder(grpc.Channel):
    """A channel that notes which calls a transport would make."""

    def __init__(self):
        self.calls = []

    def _note(self, kind):
        def note(method, *_, **__):
            self.calls.append((kind, method))
            return lambda *_, **__: None

        return note

    unary_unary = property(lambda self: self._note("unary_unary"))
    unary_stream = property(lambda self: self._note("unary_stream"))
    stream_unary = property(lambda self: self._note("stream_unary"))
    stream_stream = property(lambda self: self._note("stream_stream"))

    def subscribe(self, callback, try_to_connect=False):
        pass

    def unsubscribe(self, callback):
        pass

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def calls_of(transport):
    """(kind, path) of each RPC that a client's transport has."""
    recorder = Recorder()
    made = transport(channel=recorder)
    # Interceptors would keep from the channel what is not called.
    made._logged_channel, made._stubs = recorder, {}
    for name, member in vars(transport).items():
        if isinstance(member, property) and name not in ("grpc_channel", "operations_client"):
            getattr(made, name)
    return sorted(set(recorder.calls))


TRANSPORTS = (BigtableGrpcTransport, BigtableTableAdminGrpcTransport, BigtableInstanceAdminGrpcTransport)
CALLS = [call for transport in TRANSPORTS for call in calls_of(transport)]


def test_the_clients_know_every_rpc():
    assert len(CALLS) >= 11 + 35 + 34


@pytest.mark.parametrize(("kind", "path"), CALLS, ids=lambda value: value.rsplit("/", 1)[-1])
def test_an_empty_request_is_answered(bigtable_address, kind, path):
    with grpc.insecure_channel(bigtable_address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            answer = getattr(channel, kind)(path)(b"", timeout=10)
            list(answer if kind == "unary_stream" else [answer])
    code, details = caught.value.code(), caught.value.details()
    rpc = path.rsplit("/", 1)[1]
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED), details
    assert len(details.split()) >= 3, details
    if any(part in rpc for part in NOT_TO_COME):
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert details.startswith(f"{rpc} is not part of Hayloft. "), details
