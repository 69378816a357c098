//! The part of a CRD's schema that says what an API server takes: types, lengths, ranges, patterns. Rules in CEL
//! are not looked at.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde_json::Value;

/// The schema of the only version of a kind, at a path such as `/spec`.
pub fn of(kind: &impl serde::Serialize, path: &str) -> Value {
    let kind = serde_json::to_value(kind).unwrap_or_default();
    let steps = path.split('/').filter(|step| !step.is_empty()).map(|step| format!("/properties/{step}"));
    let pointer = format!("/spec/versions/0/schema/openAPIV3Schema{}", steps.collect::<String>());
    kind.pointer(&pointer).cloned().unwrap_or_default()
}

/// What an API server would say of `value`.
pub fn refusal(schema: &Value, value: &Value) -> Option<String> {
    check(schema, value, &mut String::new()).err()
}

fn check(schema: &Value, value: &Value, at: &mut String) -> Result<(), String> {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let length = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let wrong = |at: &str, what: &str| {
        Err(format!("{at}: {what}: {}", value.to_string().chars().take(200).collect::<String>()))
    };
    let kind = schema.get("type").and_then(Value::as_str);
    let fits = match kind {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if value.is_null() && schema.get("nullable").and_then(Value::as_bool) == Some(true) {
        return Ok(());
    }
    if !fits {
        return wrong(at, "of another type");
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return wrong(at, "not in the list");
    }
    match value {
        Value::Number(found) => {
            let found = found.as_f64().unwrap_or(f64::NAN);
            if number("minimum").is_some_and(|least| found < least)
                || number("maximum").is_some_and(|most| found > most)
            {
                return wrong(at, "out of range");
            }
        }
        Value::String(text) => {
            let count = text.chars().count();
            if length("maxLength").is_some_and(|most| count > most)
                || length("minLength").is_some_and(|least| count < least)
            {
                return wrong(at, "of another length");
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !matches(pattern, text)
            {
                return wrong(at, "against its pattern");
            }
        }
        Value::Array(items) => {
            if length("maxItems").is_some_and(|most| items.len() > most)
                || length("minItems").is_some_and(|least| items.len() < least)
            {
                return wrong(at, "of another length");
            }
            if let Some(each) = schema.get("items") {
                items.iter().enumerate().try_for_each(|(number, item)| below(each, item, at, &number.to_string()))?;
            }
        }
        Value::Object(fields) => {
            if length("maxProperties").is_some_and(|most| fields.len() > most) {
                return wrong(at, "too many fields");
            }
            let required =
                schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            if let Some(missing) = required.into_iter().find(|name| !fields.contains_key(*name)) {
                return wrong(at, &format!("without {missing}"));
            }
            for (name, field) in fields {
                let known = schema.get("properties").and_then(|known| known.get(name));
                if let Some(known) = known.or_else(|| schema.get("additionalProperties")) {
                    below(known, field, at, name)?;
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    Ok(())
}

fn below(schema: &Value, value: &Value, at: &mut String, step: &str) -> Result<(), String> {
    let length = at.len();
    at.push('.');
    at.extend(step.chars().take(40));
    check(schema, value, at)?;
    at.truncate(length);
    Ok(())
}

fn matches(pattern: &str, text: &str) -> bool {
    static KNOWN: Mutex<Option<HashMap<String, Regex>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if !known.contains_key(pattern) {
        let compiled = Regex::new(pattern).expect("a pattern of a kind is a regular expression");
        known.insert(pattern.to_owned(), compiled);
    }
    known.get(pattern).is_some_and(|compiled| compiled.is_match(text))
}
