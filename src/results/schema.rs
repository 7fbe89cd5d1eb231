//! The JSON Schemas of the records, for whoever reads them without this crate.

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{index::Index, record::CycleRecord, summary::SummaryRecord};

/// The schemas as files of `docs/schemas`: name and text of each.
pub fn schemas() -> Vec<(&'static str, String)> {
    vec![
        ("cycle-record.v1.json", schema::<CycleRecord>()),
        ("summary-record.v1.json", schema::<SummaryRecord>()),
        ("index.v1.json", schema::<Index>()),
    ]
}

fn schema<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
