//! Fields that a newer version of a schema adds for members that the older one left in `additional_fields`: a consumer
//! that reads them there no longer finds them from the newer version on.

use apache_avro::Schema;
use apache_avro::schema::{RecordField, RecordSchema, ResolvedSchema};
use serde::Serialize;

use super::drift::{RESERVED, key, type_of};
use crate::envelope::EventPlaces;
use crate::json::push_pointer;

/// A field that the older version does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promoted {
    /// Its JSON pointer from the body's root, as in `additional_fields`, but with `*` for array indexes and map keys.
    pub pointer: String,
    /// Its path in the record, `data.priority`, with `*` likewise.
    pub field: String,
    /// Its type apart from null: `string`, `record`.
    #[serde(rename = "type")]
    pub is: String,
}

/// The fields that `new` has and `old` does not, in the order of `new`. The first members that may be id and type are
/// omitted: their texts were never kept in `additional_fields`, unlike that of a later one. `places` are those of the event
/// type.
///
/// Records within records, arrays, maps and unions are compared by the members that their fields read, not by the names
/// of the fields. Of a recursive record, only the outermost is reported. A field with a wider type is not included:
/// only values that did not fit were kept. With `old` and `new` exchanged, the result is what goes to
/// `additional_fields` in future.
pub fn promoted(old: &Schema, new: &Schema, places: &EventPlaces) -> Vec<Promoted> {
    let (Schema::Record(before), Schema::Record(after)) = (old, new) else { return Vec::new() };
    let mut search =
        PromotionSearch { pair: SchemaPair::new(old, new), within: Vec::new(), found: Vec::new() };
    let from_body = |field: &&RecordField| !RESERVED.contains(&&*field.name);
    for field in &after.fields {
        if field.name == "data" {
            let at = places.data.to_string();
            let before = before.fields.iter().find(|field| field.name == "data");
            before.into_iter().for_each(|before| search.within(before, field, &at, "data"));
        } else if from_body(&field) {
            search.field(before.fields.iter().filter(from_body), field, "", "");
        }
    }
    let read = |pointer: &str| {
        let mut first = [&places.id, &places.event_type].into_iter().filter_map(|places| places.first());
        first.any(|place| place.to_string() == pointer)
    };
    search.found.retain(|found| !read(&found.pointer));
    search.found
}

struct PromotionSearch<'s> {
    pair: SchemaPair<'s>,
    /// Names of the records that we are in.
    within: Vec<&'s str>,
    found: Vec<Promoted>,
}

impl<'s> PromotionSearch<'s> {
    /// Compares a field of the newer version with the fields of the older record; `at` and `name` are the record's
    /// pointer and path.
    fn field(
        &mut self,
        mut before: impl Iterator<Item = &'s RecordField>,
        field: &'s RecordField,
        at: &str,
        name: &str,
    ) {
        let mut pointer = at.to_owned();
        push_pointer(&mut pointer, key(field));
        let name = join(name, &field.name);
        match before.find(|before| key(before) == key(field)) {
            Some(before) => self.within(before, field, &pointer, &name),
            None => {
                let is = self.pair.new.as_ref().map(|names| type_of(names, &field.schema));
                self.found.push(Promoted { pointer, field: name, is: is.unwrap_or_default() });
            }
        }
    }

    /// Compares the records that a field contains in both versions.
    fn within(&mut self, before: &'s RecordField, after: &'s RecordField, at: &str, name: &str) {
        for (steps, before, after) in self.pair.records(&before.schema, &after.schema) {
            let full = after.name.name();
            if self.within.contains(&full) {
                continue;
            }
            self.within.push(full);
            let (at, name) = (format!("{at}{}", "/*".repeat(steps)), format!("{name}{}", ".*".repeat(steps)));
            for field in &after.fields {
                self.field(before.fields.iter(), field, &at, &name);
            }
            self.within.pop();
        }
    }
}

/// A field's path, from the path of its record.
pub(super) fn join(record: &str, field: &str) -> String {
    if record.is_empty() { field.to_owned() } else { format!("{record}.{field}") }
}

/// Two versions of a schema, with their named types resolved.
pub(super) struct SchemaPair<'s> {
    old: Option<ResolvedSchema<'s>>,
    new: Option<ResolvedSchema<'s>>,
}

/// Both versions of one record, with the number of arrays and maps around it.
pub(super) type RecordPair<'s> = (usize, &'s RecordSchema, &'s RecordSchema);

impl<'s> SchemaPair<'s> {
    pub(super) fn new(old: &'s Schema, new: &'s Schema) -> Self {
        Self { old: ResolvedSchema::new(old).ok(), new: ResolvedSchema::new(new).ok() }
    }

    /// The records that both types contain, without descending into the fields of records. In unions, records with the
    /// same name are paired, or else the only ones.
    pub(super) fn records(&self, old: &'s Schema, new: &'s Schema) -> Vec<RecordPair<'s>> {
        let (mut olds, mut news) = (Vec::new(), Vec::new());
        flat(old, self.old.as_ref(), 0, &mut olds);
        flat(new, self.new.as_ref(), 0, &mut news);
        let pairs = news.iter().filter_map(|(steps, new)| {
            let mut level = olds.iter().filter(|(other, _)| other == steps).map(|(_, old)| *old);
            let named = level.clone().find(|old| old.name.name() == new.name.name());
            let sole = || match (level.next(), level.next()) {
                (Some(old), None) => Some(old),
                _ => None,
            };
            Some((*steps, named.or_else(sole)?, *new))
        });
        pairs.collect()
    }
}

/// The records of a type, each with the number of arrays and maps around it.
fn flat<'s>(
    schema: &'s Schema,
    names: Option<&ResolvedSchema<'s>>,
    steps: usize,
    into: &mut Vec<(usize, &'s RecordSchema)>,
) {
    match schema {
        Schema::Record(record) => into.push((steps, record)),
        Schema::Array(array) => flat(&array.items, names, steps + 1, into),
        Schema::Map(map) => flat(&map.types, names, steps + 1, into),
        Schema::Union(union) => union.variants().iter().for_each(|schema| flat(schema, names, steps, into)),
        Schema::Ref { name } => {
            if let Some(Schema::Record(record)) = names.and_then(|names| names.get_names().get(name)) {
                into.push((steps, record));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Pointer;
    use crate::schema::shipped;

    /// A schema of the usual root with these fields in `data`, and these beside it.
    fn schema(data: &str, beside: &str) -> Schema {
        let text = format!(
            r#"{{"type":"record","name":"E","fields":[
            {{"name":"id","type":"string"}},{{"name":"type","type":"string"}},{{"name":"source","type":"string"}},
            {{"name":"time","type":["null",{{"type":"long","logicalType":"timestamp-millis"}}],"default":null}},
            {{"name":"received_at","type":{{"type":"long","logicalType":"timestamp-millis"}}}},{beside}
            {{"name":"data","type":{{"type":"record","name":"D","fields":[{data}]}}}},
            {{"name":"additional_fields","type":{{"type":"map","values":"string"}}}}]}}"#
        );
        shipped::parse(&text).unwrap()
    }

    fn places(id: &str, data: &str) -> EventPlaces {
        let pointer = |text| Pointer::parse(text).unwrap();
        EventPlaces { id: vec![pointer(id)], event_type: vec![], time: vec![], data: pointer(data) }
    }

    fn pointers(old: &Schema, new: &Schema, places: &EventPlaces) -> Vec<String> {
        let found = promoted(old, new, places).into_iter();
        found.map(|Promoted { pointer, field, .. }| format!("{pointer} {field}")).collect()
    }

    const A: &str = r#"{"name":"a","type":["null","string"],"default":null}"#;
    const NEW: &str = r#"{"name":"new","type":["null","string"],"default":null}"#;

    fn record(name: &str, fields: &str) -> String {
        format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#)
    }

    #[test]
    fn a_new_field_is_reported_by_the_pointer_where_it_was_kept() {
        let old = schema(A, "");
        let new = schema(
            &format!(
                r#"{NEW},{A},{{"name":"order_no","type":"long","default":0,"hookstream.json":"order/no"}}"#
            ),
            r#"{"name":"tenant","type":["null","string"],"default":null},"#,
        );
        let expected = ["/tenant tenant", "/in/data/new data.new", "/in/data/order~1no data.order_no"];
        assert_eq!(pointers(&old, &new, &places("/id", "/in/data")), expected);
        let types = promoted(&old, &new, &places("/id", "/in/data")).into_iter().map(|one| one.is);
        assert_eq!(types.collect::<Vec<_>>(), ["string", "string", "long"]);
        assert_eq!(pointers(&new, &old, &places("/id", "/in/data")), [""; 0]);
        assert_eq!(pointers(&new, &new, &places("/id", "/in/data")), [""; 0]);
        assert_eq!(pointers(&old, &new, &places("/new", ""))[1..], ["/order~1no data.order_no"], "the id");
        let mut two = places("/id", "/in/data");
        two.id.push(Pointer::parse("/tenant").unwrap());
        assert_eq!(pointers(&old, &new, &two), expected, "kept if it was not the id");
    }

    #[test]
    fn a_renamed_field_is_not_promoted_unless_it_reads_another_member() {
        let old = schema(r#"{"name":"a","type":"string"}"#, "");
        let renamed = schema(r#"{"name":"b","type":"string","hookstream.json":"a"}"#, "");
        assert_eq!(pointers(&old, &renamed, &places("/id", "/data")), [""; 0]);
        let other = schema(r#"{"name":"a","type":"string","hookstream.json":"z"}"#, "");
        assert_eq!(pointers(&old, &other, &places("/id", "/data")), ["/data/z data.a"]);
    }

    #[test]
    fn nested_records_are_compared_and_a_new_record_is_one_field() {
        let within = |fields: &str| {
            let (item, place) = (record("Item", fields), record("Place", fields));
            format!(
                r#"{{"name":"items","type":["null",{{"type":"array","items":["null",{item}]}}]}},
                {{"name":"by","type":{{"type":"map","values":{{"type":"array","items":"Item"}}}}}},
                {{"name":"from","type":{place}}},{{"name":"to","type":["null","Place"]}}"#
            )
        };
        let old = schema(&within(A), "");
        let deep = format!(r#"{{"name":"deep","type":{}}}"#, record("Deep", A));
        let new = schema(&format!("{},{deep}", within(&format!("{A},{NEW}"))), "");
        let expected = [
            "/data/items/*/new data.items.*.new",
            "/data/by/*/*/new data.by.*.*.new",
            "/data/from/new data.from.new",
            "/data/to/new data.to.new",
            "/data/deep data.deep",
        ];
        assert_eq!(pointers(&old, &new, &places("/id", "/data")), expected);
    }

    #[test]
    fn records_in_unions_are_paired_by_name_and_recursion_ends() {
        let union = |x: &str| {
            let (x, y) = (record("X", x), record("Y", A));
            schema(&format!(r#"{{"name":"u","type":["null",{y},{x}]}}"#), "")
        };
        let found = pointers(&union(A), &union(&format!("{A},{NEW}")), &places("/id", "/data"));
        assert_eq!(found, ["/data/u/new data.u.new"]);
        let itself = |more: &str| {
            let node = record("Node", &format!(r#"{{"name":"next","type":["null","Node"]}}{more}"#));
            schema(&format!(r#"{{"name":"n","type":{node}}}"#), "")
        };
        let found = pointers(&itself(""), &itself(&format!(",{NEW}")), &places("/id", "/data"));
        assert_eq!(found, ["/data/n/new data.n.new"]);
    }

    #[test]
    fn a_schema_that_is_not_a_record_has_no_promoted_fields() {
        let typed = schema(A, "");
        let generic = shipped::parse(&shipped::generic("a", "b")).unwrap();
        assert_eq!(pointers(&generic, &typed, &places("/id", "/data")), [""; 0]);
        assert_eq!(pointers(&Schema::Null, &typed, &places("/id", "/data")), [""; 0]);
    }
}
