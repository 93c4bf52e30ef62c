//! Fields that a newer version of a schema types and the older one left in `additional_fields`: a consumer
//! that read them there finds nothing there from the newer version on.

use apache_avro::Schema;
use apache_avro::schema::{RecordField, RecordSchema, ResolvedSchema};

use super::drift::type_of;
use crate::envelope::Places;
use crate::json::push_pointer;

/// The root's fields that read no member of the body by their own name.
const OURS: [&str; 6] = ["id", "type", "source", "time", "received_at", "additional_fields"];

/// A field that the older version did not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// Its JSON pointer from the body's root, as in `additional_fields`, but with `*` for what a body
    /// chooses: the place in an array, a map's key.
    pub pointer: String,
    /// The way to it in the record, `data.priority`, with `*` likewise.
    pub field: String,
    /// Its type beside null: `string`, `record`.
    pub is: String,
}

/// The fields that `new` types and `old` does not know, in the order of `new`; what the envelope reads from
/// them is left out, since it was never kept. `places` are those of the event type.
///
/// Records within records, arrays, maps and unions are compared, by the members that their fields read and
/// not by the fields' names. Of a record within itself the outermost is told. A field that became wider is
/// none of them: only values that did not fit were kept. With old and new exchanged: what goes to
/// `additional_fields` from now on.
pub fn promoted(old: &Schema, new: &Schema, places: &Places) -> Vec<Promoted> {
    let (Schema::Record(before), Schema::Record(after)) = (old, new) else { return Vec::new() };
    let mut search =
        PromotionSearch { pair: SchemaPair::new(old, new), within: Vec::new(), found: Vec::new() };
    for field in after.fields.iter().filter(|field| !OURS.contains(&field.name.as_str())) {
        if field.name == "data" {
            let mut at = String::new();
            places.data.names().iter().for_each(|name| push_pointer(&mut at, name));
            let before = before.fields.iter().find(|field| field.name == "data");
            before.into_iter().for_each(|before| search.within(before, field, &at, "data"));
        } else {
            let others = |field: &&RecordField| !OURS.contains(&field.name.as_str()) && field.name != "data";
            search.field(before.fields.iter().filter(others), field, "", "");
        }
    }
    let read = |pointer: &str| {
        [&places.id, &places.event_type].into_iter().flatten().any(|place| {
            let mut text = String::new();
            place.names().iter().for_each(|name| push_pointer(&mut text, name));
            text == pointer
        })
    };
    search.found.retain(|found| !read(&found.pointer));
    search.found
}

/// The member that a field reads.
fn key(field: &RecordField) -> &str {
    field.custom_attributes.get("hookstream.json").and_then(|key| key.as_str()).unwrap_or(&field.name)
}

struct PromotionSearch<'s> {
    pair: SchemaPair<'s>,
    /// Names of the records that we are in.
    within: Vec<&'s str>,
    found: Vec<Promoted>,
}

impl<'s> PromotionSearch<'s> {
    /// A field of the newer version beside all those of the older record; `at` and `name` are the record's
    /// own pointer and way.
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

    /// The records that a field holds in both versions.
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

/// A field's way from that of its record.
pub(super) fn join(record: &str, field: &str) -> String {
    if record.is_empty() { field.to_owned() } else { format!("{record}.{field}") }
}

/// Two versions of a schema, whose named types may be used before, after and within each other.
pub(super) struct SchemaPair<'s> {
    old: Option<ResolvedSchema<'s>>,
    new: Option<ResolvedSchema<'s>>,
}

/// Both versions of one record, below so many arrays and maps.
pub(super) type RecordPair<'s> = (usize, &'s RecordSchema, &'s RecordSchema);

impl<'s> SchemaPair<'s> {
    pub(super) fn new(old: &'s Schema, new: &'s Schema) -> Self {
        Self { old: ResolvedSchema::new(old).ok(), new: ResolvedSchema::new(new).ok() }
    }

    /// The records that both of two types hold, the fields of records not looked into. In unions, those of
    /// one name belong together, or the only ones.
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

    fn places(id: &str, data: &str) -> Places {
        let pointer = |text| Pointer::parse(text).unwrap();
        Places { id: Some(pointer(id)), event_type: None, time: None, data: pointer(data) }
    }

    fn told(old: &Schema, new: &Schema, places: &Places) -> Vec<String> {
        let found = promoted(old, new, places).into_iter();
        found.map(|Promoted { pointer, field, .. }| format!("{pointer} {field}")).collect()
    }

    const A: &str = r#"{"name":"a","type":["null","string"],"default":null}"#;
    const NEW: &str = r#"{"name":"new","type":["null","string"],"default":null}"#;

    fn record(name: &str, fields: &str) -> String {
        format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#)
    }

    #[test]
    fn what_is_typed_now_is_named_where_it_was_kept() {
        let old = schema(A, "");
        let new = schema(
            &format!(
                r#"{NEW},{A},{{"name":"order_no","type":"long","default":0,"hookstream.json":"order/no"}}"#
            ),
            r#"{"name":"tenant","type":["null","string"],"default":null},"#,
        );
        let expected = ["/tenant tenant", "/in/data/new data.new", "/in/data/order~1no data.order_no"];
        assert_eq!(told(&old, &new, &places("/id", "/in/data")), expected);
        let types = promoted(&old, &new, &places("/id", "/in/data")).into_iter().map(|one| one.is);
        assert_eq!(types.collect::<Vec<_>>(), ["string", "string", "long"]);
        assert_eq!(told(&new, &old, &places("/id", "/in/data")), [""; 0]);
        assert_eq!(told(&new, &new, &places("/id", "/in/data")), [""; 0]);
        assert_eq!(told(&old, &new, &places("/new", ""))[1..], ["/order~1no data.order_no"], "the id");
    }

    #[test]
    fn a_field_of_another_name_that_reads_the_same_member_promotes_nothing_and_one_that_reads_another_does() {
        let old = schema(r#"{"name":"a","type":"string"}"#, "");
        let renamed = schema(r#"{"name":"b","type":"string","hookstream.json":"a"}"#, "");
        assert_eq!(told(&old, &renamed, &places("/id", "/data")), [""; 0]);
        let other = schema(r#"{"name":"a","type":"string","hookstream.json":"z"}"#, "");
        assert_eq!(told(&old, &other, &places("/id", "/data")), ["/data/z data.a"]);
    }

    #[test]
    fn records_in_arrays_maps_unions_and_by_name_are_looked_into_and_a_new_record_is_one_field() {
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
        assert_eq!(told(&old, &new, &places("/id", "/data")), expected);
    }

    #[test]
    fn of_a_union_the_record_of_the_same_name_counts_and_one_within_itself_ends() {
        let union = |x: &str| {
            let (x, y) = (record("X", x), record("Y", A));
            schema(&format!(r#"{{"name":"u","type":["null",{y},{x}]}}"#), "")
        };
        let found = told(&union(A), &union(&format!("{A},{NEW}")), &places("/id", "/data"));
        assert_eq!(found, ["/data/u/new data.u.new"]);
        let itself = |more: &str| {
            let node = record("Node", &format!(r#"{{"name":"next","type":["null","Node"]}}{more}"#));
            schema(&format!(r#"{{"name":"n","type":{node}}}"#), "")
        };
        let found = told(&itself(""), &itself(&format!(",{NEW}")), &places("/id", "/data"));
        assert_eq!(found, ["/data/n/new data.n.new"]);
    }

    #[test]
    fn of_what_is_no_record_nothing_is_said() {
        let typed = schema(A, "");
        let generic = shipped::parse(&shipped::generic("a", "b")).unwrap();
        assert_eq!(told(&generic, &typed, &places("/id", "/data")), [""; 0]);
        assert_eq!(told(&Schema::Null, &typed, &places("/id", "/data")), [""; 0]);
    }
}
