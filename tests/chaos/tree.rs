//! Rebuilds the body from its record, as consumers must be able to.

use anyhow::Context as _;
use apache_avro::types::Value as Avro;
use serde_json::{Map, Value, json};

/// The body without nulls: the typed fields, and `additional_fields` over them.
pub fn sent(record: &Avro, source: &str) -> anyhow::Result<Value> {
    let Value::Object(mut fields) = json(record)? else { anyhow::bail!("not a record") };
    let additional = fields.remove("additional_fields").context("additional_fields")?;
    let mut body = match source {
        "datagrid" => {
            let time = fields["time"].as_str().context("time")?.parse::<jiff::Timestamp>()?;
            json!({"id": fields["id"], "event_type": fields["type"], "timestamp": time.as_second()})
        }
        _ => json!({"event": fields["type"], "timestamp": fields["time"], "tenant_id": fields["tenant_id"]}),
    };
    body["data"] = fields.remove("data").context("data")?;
    for (pointer, text) in additional.as_object().context("not a map")? {
        set(&mut body, pointer, serde_json::from_str(text.as_str().context("not a string")?)?);
    }
    drop_nulls(&mut body);
    Ok(body)
}

/// Null counts as missing.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn set(tree: &mut Value, pointer: &str, value: Value) {
    let mut at = tree;
    for name in pointer.split('/').skip(1) {
        at = &mut at[name.replace("~1", "/").replace("~0", "~")];
    }
    *at = value;
}

fn json(value: &Avro) -> anyhow::Result<Value> {
    Ok(match value {
        Avro::Null => Value::Null,
        Avro::Boolean(value) => json!(value),
        Avro::Int(value) => json!(value),
        Avro::Long(value) => json!(value),
        Avro::Double(value) => json!(value),
        Avro::String(value) => json!(value),
        Avro::TimestampMillis(ms) => {
            json!(format!("{:.3}", jiff::Timestamp::from_millisecond(*ms)?))
        }
        Avro::Union(_, value) => json(value)?,
        Avro::Array(items) => items.iter().map(json).collect::<anyhow::Result<Vec<_>>>()?.into(),
        Avro::Map(members) => {
            let members = members.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            Value::Object(members.collect::<anyhow::Result<Map<_, _>>>()?)
        }
        Avro::Record(members) => {
            let members = members.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            Value::Object(members.collect::<anyhow::Result<Map<_, _>>>()?)
        }
        other => anyhow::bail!("a type that no schema here has: {other:?}"),
    })
}
