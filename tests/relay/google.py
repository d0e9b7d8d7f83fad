"""Google's classes of our schemas, to check the codec against."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from isthmus.transports.core.protobuf import Kind

TYPES = {
    Kind.UINT: "TYPE_UINT64",
    Kind.FIXED64: "TYPE_FIXED64",
    Kind.BYTES: "TYPE_BYTES",
    Kind.STRING: "TYPE_STRING",
    Kind.MESSAGE: "TYPE_MESSAGE",
}


def google_class(schema, name):
    """Build Google's class of a schema: proto2, so that presence is explicit there, too."""
    proto = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto2")
    _describe(proto, schema, "Outer", name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{name}.Outer"))


def _describe(proto, schema, kind, package):
    described = proto.message_type.add(name=kind)
    for field in schema.fields:
        inner = f"{kind}{field.number}"
        constants = descriptor_pb2.FieldDescriptorProto
        label = "LABEL_REPEATED" if field.repeated else "LABEL_OPTIONAL"
        described.field.add(
            name=field.name,
            number=field.number,
            type=getattr(constants, TYPES[field.kind]),
            label=getattr(constants, label),
            type_name=f".{package}.{inner}" if field.kind is Kind.MESSAGE else None,
        )
        if field.schema is not None:
            _describe(proto, field.schema, inner, package)
