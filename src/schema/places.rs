//! The places of the envelope's parts in the body, as a tree that the walk descends in parallel, and the path of the
//! walk.

use crate::envelope::EventPlaces;
use crate::json::{Pointer, push_pointer};

/// The envelope's field that is read at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EnvelopeField {
    Id,
    Type,
    /// With its index among the places of the time.
    Time(usize),
    Data,
    /// A further place of id or type, which is read only if no place before it has a value. The record does not say
    /// which was read, so its value is always kept.
    Alternative,
}

/// A node of the tree: one name on the path to the envelope's parts.
#[derive(Debug, Default)]
pub(super) struct EnvelopeTree {
    pub(super) field: Option<EnvelopeField>,
    below: Vec<(String, EnvelopeTree)>,
}

impl EnvelopeTree {
    pub(super) fn tree(places: &EventPlaces) -> Self {
        let mut root = Self::default();
        root.put(&places.data, EnvelopeField::Data);
        for (places, field) in [(&places.id, EnvelopeField::Id), (&places.event_type, EnvelopeField::Type)] {
            places.first().into_iter().for_each(|first| root.put(first, field));
        }
        for (index, time) in places.time.iter().enumerate() {
            root.put(time, EnvelopeField::Time(index));
        }
        for place in [&places.id, &places.event_type].into_iter().flat_map(|places| places.iter().skip(1)) {
            root.put(place, EnvelopeField::Alternative);
        }
        root
    }

    /// Adds a place. The first field at a place is used: of two that read the same text, either contains its value.
    fn put(&mut self, pointer: &Pointer, field: EnvelopeField) {
        let mut spot = self;
        for name in pointer.names() {
            let at = spot.below.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                spot.below.push((name.clone(), Self::default()));
                spot.below.len() - 1
            });
            let Some((_, next)) = spot.below.get_mut(at) else { return };
            spot = next;
        }
        spot.field.get_or_insert(field);
    }

    /// The node under `name`, if the envelope reads there or deeper.
    pub(super) fn below(&self, name: &str) -> Option<&Self> {
        self.below.iter().find(|(known, _)| known == name).map(|(_, spot)| spot)
    }

    /// The node at the path `names`.
    pub(super) fn at(&self, names: &[String]) -> Option<&Self> {
        names.iter().try_fold(self, |spot, name| spot.below(name))
    }
}

/// The path from the body's root to a value, as a linked list on the stack: a string is built only when needed.
#[derive(Clone, Copy)]
pub(super) struct ValuePath<'p> {
    above: Option<&'p ValuePath<'p>>,
    step: PathStep<'p>,
}

#[derive(Clone, Copy)]
enum PathStep<'p> {
    /// A complete pointer.
    Start(&'p str),
    /// A field of the schema, by its key in the body.
    Field(&'p str),
    /// An element of an array.
    Index(usize),
    /// A map's key, chosen by the body.
    Key(&'p str),
    /// A member that the schema does not know, named by the body.
    Unknown(&'p str),
}

impl<'p> ValuePath<'p> {
    pub(super) const fn start(pointer: &'p str) -> Self {
        Self { above: None, step: PathStep::Start(pointer) }
    }

    pub(super) const fn field(&'p self, name: &'p str) -> Self {
        Self { above: Some(self), step: PathStep::Field(name) }
    }

    pub(super) const fn index(&'p self, index: usize) -> Self {
        Self { above: Some(self), step: PathStep::Index(index) }
    }

    pub(super) const fn key(&'p self, key: &'p str) -> Self {
        Self { above: Some(self), step: PathStep::Key(key) }
    }

    pub(super) const fn unknown(&'p self, name: &'p str) -> Self {
        Self { above: Some(self), step: PathStep::Unknown(name) }
    }

    /// The JSON pointer, for `additional_fields`.
    pub(super) fn pointer(&self) -> String {
        self.written(|_| false)
    }

    /// The pointer for messages, with `*` for the names that the body chose, which may be payload.
    pub(super) fn masked(&self) -> String {
        self.written(|step| matches!(step, PathStep::Key(_) | PathStep::Unknown(_)))
    }

    /// The pointer of a new field, with `*` for indexes and map keys, which differ from event to event.
    pub(super) fn shape(&self) -> String {
        self.written(|step| matches!(step, PathStep::Key(_) | PathStep::Index(_)))
    }

    fn written(&self, masked: fn(PathStep<'_>) -> bool) -> String {
        let mut pointer = String::with_capacity(self.size());
        self.write(&mut pointer, masked);
        pointer
    }

    /// The length of the pointer in bytes, without escapes; an index counts 6.
    pub(super) fn size(&self) -> usize {
        let own = match self.step {
            PathStep::Start(pointer) => pointer.len(),
            PathStep::Field(name) | PathStep::Key(name) | PathStep::Unknown(name) => 1 + name.len(),
            PathStep::Index(_) => 6,
        };
        own + self.above.map_or(0, ValuePath::size)
    }

    fn write(&self, pointer: &mut String, masked: fn(PathStep<'_>) -> bool) {
        if let Some(above) = self.above {
            above.write(pointer, masked);
        }
        match self.step {
            PathStep::Start(start) => pointer.push_str(start),
            step if masked(step) => pointer.push_str("/*"),
            PathStep::Field(name) | PathStep::Key(name) | PathStep::Unknown(name) => {
                push_pointer(pointer, name)
            }
            PathStep::Index(index) => push_pointer(pointer, &index.to_string()),
        }
    }
}
