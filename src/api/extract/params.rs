//! Path and query parameters. Identifiers are checked while they are read.

use axum::extract::FromRequestParts;
use hearth_core::error::MatrixError;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::error::ApiError;

/// The path's parameters: one value, or a tuple in the order of the path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        match read {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(MatrixError::invalid_param(rejection.body_text()).into()),
        }
    }
}

/// The query's parameters. A repeated parameter fills a `Vec`; unknown ones are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// For a token of a page: an empty one is none. Clients of long standing send it where they have no token.
pub fn token_unless_empty<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    let token = Option::<String>::deserialize(value)?;
    Ok(token.filter(|token| !token.is_empty()))
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    serde_html_form::from_str(query).map_err(|error| {
        let sentence = error.to_string();
        if sentence.starts_with("missing field") {
            return MatrixError::missing_param(format!("The query has a {sentence}")).into();
        }
        MatrixError::invalid_param(format!("A query parameter is wrong: {sentence}")).into()
    })
}

#[cfg(test)]
mod tests {
    use ruma::OwnedUserId;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wanted {
        user: OwnedUserId,
        limit: Option<u32>,
        #[serde(default)]
        via: Vec<String>,
    }

    #[test]
    fn queries() {
        let check = |query: &str, expected: Result<(Option<u32>, usize), &str>| {
            let got = read_query::<Wanted>(query);
            match (got, expected) {
                (Ok(got), Ok(expected)) => {
                    assert_eq!((got.limit, got.via.len()), expected, "{query}");
                }
                (Err(error), Err(errcode)) => assert_eq!(error.errcode(), Some(errcode), "{query}"),
                (got, expected) => panic!("{query}: {got:?}, expected {expected:?}"),
            }
        };
        check("user=@a:x", Ok((None, 0)));
        check("user=%40a%3Ax&limit=3&via=one&via=two&other=1", Ok((Some(3), 2)));
        check("limit=3", Err("M_MISSING_PARAM"));
        check("user=nobody", Err("M_INVALID_PARAM"));
        check("user=@a:x&limit=many", Err("M_INVALID_PARAM"));
        check("user=%ff", Err("M_INVALID_PARAM"));
    }
}
