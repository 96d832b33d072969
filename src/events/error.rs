/// What was wrong with an event, a piece of JSON, a key or a signature. Every variant prints as a sentence for the one who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not JSON, or not of the subset that the room version takes.
    #[error("The JSON is not acceptable: {0}")]
    Json(String),
    /// Something is longer than the specification allows.
    #[error("{what} is {actual} bytes long, but may have at most {max}")]
    TooLarge {
        /// What it is, as the beginning of a sentence.
        what: &'static str,
        /// The most bytes it may have.
        max: usize,
        /// The bytes it has.
        actual: usize,
    },
    /// A field of an event is missing or of a wrong form.
    #[error("The event is malformed: {0}")]
    Format(String),
    /// A signature is missing or does not fit.
    #[error("The signature is not acceptable: {0}")]
    Signature(String),
    /// A key cannot be used.
    #[error("The key is not acceptable: {0}")]
    Key(String),
}
