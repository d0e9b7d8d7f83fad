//! Why a command failed: `kind` is the name of an error, `text` its words.

use std::fmt::Debug;
use std::io;

use libp2p::swarm::DialError;

#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: String,
    pub text: String,
}

impl Failure {
    pub fn new(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            text: text.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(variant(&error.kind()), error.to_string())
    }
}

impl From<&DialError> for Failure {
    fn from(error: &DialError) -> Self {
        Self::new(variant(error), error.to_string())
    }
}

/// The name of an enum's variant, without what is in it.
fn variant(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|letter: char| !letter.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}
