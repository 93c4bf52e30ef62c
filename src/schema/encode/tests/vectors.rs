//! Compares the bytes with fastavro's encoding of the same values (tests/fixtures/avro/make.py).

use super::*;

#[derive(serde::Deserialize)]
struct Vector {
    name: String,
    /// The field `x` of `data`.
    field: Value,
    /// The JSON value as it would be sent.
    json: String,
    /// `data` as fastavro writes it.
    avro: String,
}

#[test]
fn values_are_the_bytes_that_fastavro_writes() {
    let text = include_str!("../../../../tests/fixtures/avro/vectors.json");
    let mut vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
    let money = vectors[0].field.clone();
    for (json, avro) in [("-1.28", "0280"), ("-327.68", "048000")] {
        // As few bytes as possible, as Java's BigInteger.toByteArray.
        let (name, json, avro) = ("Java's".to_owned(), json.to_owned(), avro.to_owned());
        vectors.push(Vector { name, field: money.clone(), json, avro });
    }
    assert!(vectors.len() > 40);
    for Vector { name, field, json, avro } in vectors {
        let schema = schema(&field.to_string());
        let body = format!(r#"{{"data":{{"x":{json}}}}}"#);
        let bytes = hex::encode(encode(&schema, &datagrid(), None, &body).unwrap().value);
        // After `received_at`, before an empty `additional_fields`.
        assert!(
            bytes.ends_with(&format!("a4d19f8caf67{avro}00")),
            "{name}: {json} gives {bytes}, not {avro}"
        );
    }
}
