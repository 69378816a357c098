//! Strings with a grammar: amounts, digests, addresses, durations, quantities.
//!
//! The schema refuses a malformed value where it is written, so the parts
//! behind it parse only what fits.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! text {
    (#[doc = $doc:literal] $name:ident, $max:literal, $pattern:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    // What `kubectl explain` says of a field that says nothing more of its own.
                    "description": $doc.trim(), "type": "string", "maxLength": $max, "pattern": $pattern
                })
            }
        }
    };
}

text!(
    /// Whole tokens as a decimal string, such as `"1.25"`; at most nine decimals.
    TokenAmount, 22, r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?$"
);
text!(
    /// A non-negative decimal number as a string, such as `"0.003"`.
    Decimal, 24, r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,12})?$"
);
text!(
    /// A whole percentage, such as `10%`.
    Percent, 4, r"^(100|[1-9]?[0-9])%$"
);
text!(
    /// A duration in Go's form, such as `90s`, `5m` or `1h30m`.
    GoDuration, 24, r"^([0-9]{1,6}h([0-9]{1,6}m)?([0-9]{1,6}s)?|[0-9]{1,6}m([0-9]{1,6}s)?|[0-9]{1,6}s)$"
);
text!(
    /// SHA-256 as 64 lower-case hexadecimal digits.
    Sha256, 64, r"^[0-9a-f]{64}$"
);
text!(
    /// An account or contract on the chain: `0x` and 40 hexadecimal digits.
    EvmAddress, 42, r"^0x[0-9a-fA-F]{40}$"
);
text!(
    /// 32 bytes: `0x` and 64 lower-case hexadecimal digits.
    Bytes32, 66, r"^0x[0-9a-f]{64}$"
);
text!(
    /// An image by digest: `repository@sha256:…`. A tag alone is refused, since it can change under a lease.
    ImageByDigest, 512, r"^[a-z0-9][a-z0-9._:/-]{0,400}@sha256:[0-9a-f]{64}$"
);
text!(
    /// Name of an object in the same namespace (or of a cluster-scoped one).
    ObjectName, 253, r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
);
text!(
    /// An `http` or `https` address.
    HttpUrl, 512, r"^https?://[^\s]{1,500}$"
);
text!(
    /// Free text of bounded length, for messages and names that the operator writes.
    Text, 1024, r"^[\s\S]*$"
);

/// A Kubernetes quantity, such as `500m`, `4Gi` or `2`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub k8s_openapi::apimachinery::pkg::api::resource::Quantity);

impl Eq for Quantity {}

impl Quantity {
    pub fn as_str(&self) -> &str {
        &self.0.0
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned()))
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 24,
            "x-kubernetes-validations": [{
                "rule": "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))",
                "message": "must be a positive quantity such as 500m, 4Gi or 2"
            }]
        })
    }
}

/// Schema of `status.conditions` and other lists that are keyed by `type`.
pub fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Vec::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>::json_schema(generator);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema.insert("maxItems".into(), 16.into());
    schema.insert("description".into(), "What holds and what does not, with reason and remedy.".into());
    schema
}
