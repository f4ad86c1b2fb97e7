//! What the kinds' JSON Schemas say: which parameters a kind knows, and the schema of the whole
//! file for editors. Knows no file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    instance::Resources,
    kind::{Kinds, Roles},
    lockfile,
};

/// What `check_name` takes.
const NAME: &str = "^[A-Za-z0-9_-]{1,100}$";

/// What a kind's schema says about its parameters.
#[derive(Default)]
pub(super) struct Fact {
    pub(super) properties: BTreeMap<String, Value>,
    /// Nothing but `properties` is allowed.
    pub(super) closed: bool,
}

impl Fact {
    /// May the parameter's own value be a list?
    pub(super) fn takes_list(&self, key: &str) -> bool {
        self.types(key).contains(&"array")
    }

    /// Is it one, and never a single value?
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.takes_list(key) && self.types(key).iter().all(|kind| ["array", "null"].contains(kind))
    }

    fn types(&self, key: &str) -> Vec<&str> {
        match self.properties.get(key).and_then(|property| property.get("type")) {
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            one => one.and_then(Value::as_str).into_iter().collect(),
        }
    }
}

/// The facts of every kind, by its name.
pub(super) struct Facts(BTreeMap<&'static str, Fact>);

impl Facts {
    pub(super) fn of(kinds: &Kinds) -> Self {
        let mut generator = schemars::SchemaGenerator::default();
        Self::with(kinds, &mut generator)
    }

    fn with(kinds: &Kinds, generator: &mut schemars::SchemaGenerator) -> Self {
        let mut facts = BTreeMap::new();
        for kind in kinds.iter() {
            let schema = kind.schema(generator);
            let mut fact = Fact::default();
            fact.closed = collect(schema.as_value(), generator.definitions(), &mut fact.properties, 0);
            facts.insert(kind.name(), fact);
        }
        Self(facts)
    }

    pub(super) fn get(&self, kind: &str) -> Option<&Fact> {
        self.0.get(kind)
    }
}

/// Gathers the properties of a schema and its variants; says whether it allows no others.
fn collect(
    schema: &Value,
    definitions: &Map<String, Value>,
    out: &mut BTreeMap<String, Value>,
    depth: usize,
) -> bool {
    let refused = |key: &str| schema.get(key) == Some(&Value::Bool(false));
    let mut closed = refused("additionalProperties") || refused("unevaluatedProperties");
    if depth > 16 {
        return closed;
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, property) in properties {
            match out.get_mut(key) {
                None => {
                    out.insert(key.clone(), property.clone());
                }
                // Variants that disagree about a property: any of them.
                Some(old) if old != property => *old = json!({ "anyOf": [old.clone(), property] }),
                Some(_) => {}
            }
        }
    }
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
    if let Some(target) = reference.and_then(|name| definitions.get(name)) {
        closed |= collect(target, definitions, out, depth + 1);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        if let Some(variants) = schema.get(key).and_then(Value::as_array) {
            let mut all = !variants.is_empty();
            for variant in variants {
                all &= collect(variant, definitions, out, depth + 1);
            }
            closed |= all;
        }
    }
    closed
}

/// JSON Schema (draft 2020-12) of a pipeline file whose stages are of these kinds.
pub fn schema(kinds: &Kinds) -> Value {
    let mut generator = schemars::SchemaGenerator::default();
    let resources = generator.subschema_for::<Resources>();
    let facts = Facts::with(kinds, &mut generator);
    let mut definitions = generator.take_definitions(true);
    // They may refer to parameters as everything else may.
    if let Some(Value::Object(properties)) =
        definitions.get_mut("Resources").and_then(|it| it.get_mut("properties"))
    {
        for property in properties.values_mut() {
            *property = json!({ "anyOf": [property.take(), reference()] });
        }
    }
    let mut choices = Vec::new();
    for kind in kinds.iter() {
        let Some(fact) = facts.get(kind.name()) else { continue };
        let mut properties: Map<String, Value> = fact
            .properties
            .iter()
            .map(|(key, property)| (key.clone(), json!({ "anyOf": [property, reference()] })))
            .collect();
        properties.insert("kind".into(), json!({ "const": kind.name() }));
        properties.insert("matrix".into(), json!({ "$ref": "#/$defs/pipeline.matrix" }));
        properties.insert("needs".into(), needs(kind.roles()));
        properties.insert("resources".into(), resources.as_value().clone());
        let name = format!("pipeline.stage.{}", kind.name());
        definitions.insert(
            name.clone(),
            json!({ "type": "object", "properties": properties, "additionalProperties": !fact.closed }),
        );
        choices.push(json!({
            "if": { "properties": { "kind": { "const": kind.name() } }, "required": ["kind"] },
            "then": { "$ref": format!("#/$defs/{name}") },
        }));
    }
    definitions.insert("pipeline.matrix".into(), matrix());
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    definitions.insert(
        "pipeline.stage".into(),
        json!({
            "type": "object",
            "properties": { "kind": { "enum": names, "description": "What the stage does." } },
            "required": ["kind"],
            "allOf": choices,
        }),
    );
    let params = json!({ "type": "object", "description": "Values for `${name}` references." });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "params": params,
            "stage": {
                "type": "object",
                "description": "The stages by name.",
                "propertyNames": { "pattern": NAME },
                "additionalProperties": { "$ref": "#/$defs/pipeline.stage" },
            },
            "profile": {
                "type": "object",
                "description": "Overlays by name, chosen with `--profile`.",
                "propertyNames": { "pattern": NAME, "not": { "const": lockfile::section(None) } },
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "params": params,
                        "stage": { "type": "object", "additionalProperties": { "type": "object" } },
                    },
                },
            },
        },
        "$defs": definitions,
    })
}

fn reference() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{" })
}

fn matrix() -> Value {
    let table = json!({ "anyOf": [{ "type": "object" }, reference()] });
    let tables = json!({ "anyOf": [{ "type": "array", "items": table }, reference()] });
    json!({
        "type": "object",
        "description": "One instance per combination of the axes.",
        "propertyNames": { "pattern": NAME },
        "properties": { "exclude": tables, "include": tables },
        "additionalProperties": { "anyOf": [{ "type": "array", "minItems": 1 }, reference()] },
    })
}

fn needs(roles: Roles) -> Value {
    let many = json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
    match roles {
        Roles::Any => json!({ "type": "object", "additionalProperties": many }),
        Roles::Named(roles) => {
            let properties: Map<String, Value> =
                roles.iter().map(|role| (role.name.to_owned(), many.clone())).collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
    }
}
