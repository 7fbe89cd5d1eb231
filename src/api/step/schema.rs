//! Schemas of fields whose content is the server's own business.

use schemars::{Schema, SchemaGenerator, json_schema};

pub(in crate::api) fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

pub(in crate::api) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

pub(in crate::api) fn objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 128,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    })
}

pub(in crate::api) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true, "minimum": 0, "maxLength": 1024})
}
