//! Who may read artifacts.

use std::sync::Arc;

use async_trait::async_trait;
use freehold_api::task::Artifact;
use freehold_core::wire::Problem;
use rstest::rstest;
use warp::Filter;

use crate::task::http::{Reviewer, Target, Unavailable, User, routes};
use crate::task::store::Store;

/// `alice` may get the task `digits` of `team-a`, `mallory` nothing.
struct Script {
    artifacts: Vec<Artifact>,
}

#[async_trait]
impl Reviewer for Script {
    async fn user(&self, token: &str) -> Result<Option<User>, Unavailable> {
        let known = ["alice", "mallory"].contains(&token);
        Ok(known.then(|| User { name: token.into(), ..User::default() }))
    }

    async fn may_get(&self, user: &User, target: &Target) -> Result<bool, Unavailable> {
        let own = Target { namespace: "team-a".into(), resource: "trainingtasks".into(), name: "digits".into() };
        Ok(user.name == "alice" && *target == own)
    }

    async fn artifacts(&self, target: &Target) -> Result<Option<Vec<Artifact>>, Unavailable> {
        Ok((target.name == "digits").then(|| self.artifacts.clone()))
    }
}

async fn get(path: &str, token: Option<&str>) -> (u16, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path());
    let sha256 = store.put("team-a", b"weights").expect("stores");
    let artifact = |name: &str| Artifact { name: name.into(), sha256: sha256.clone().into(), size: 7 };
    let script = Script { artifacts: vec![artifact("model.safetensors"), artifact("sub/notes.txt")] };
    let filter = routes(store, Arc::new(script)).boxed();
    let mut request = warp::test::request().path(path);
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let response = request.reply(&filter).await;
    (response.status().as_u16(), response.body().to_vec())
}

const PATH: &str = "/v1/namespaces/team-a/trainingtasks/digits/artifacts/model.safetensors";

#[rstest]
#[case(PATH, Some("Bearer alice"), 200)]
#[case("/v1/namespaces/team-a/trainingtasks/digits/artifacts/sub/notes.txt", Some("Bearer alice"), 200)]
#[case(PATH, None, 401)]
#[case(PATH, Some("alice"), 401)]
#[case(PATH, Some("Bearer "), 401)]
#[case(PATH, Some("Bearer stranger"), 401)]
#[case(PATH, Some("Bearer mallory"), 403)]
#[case("/v1/namespaces/team-b/trainingtasks/digits/artifacts/model.safetensors", Some("Bearer alice"), 403)]
#[case("/v1/namespaces/team-a/inferencetasks/digits/artifacts/model.safetensors", Some("Bearer alice"), 403)]
#[case("/v1/namespaces/team-a/secrets/digits/artifacts/model.safetensors", Some("Bearer alice"), 404)]
#[case("/v1/namespaces/team-a/trainingtasks/digits/artifacts/other", Some("Bearer alice"), 404)]
#[case("/v1/namespaces/team-a/trainingtasks/digits/artifacts/../../secret", Some("Bearer alice"), 404)]
#[tokio::test]
async fn artifacts_are_for_those_who_may_get_the_task(
    #[case] path: &str,
    #[case] token: Option<&str>,
    #[case] status: u16,
) {
    let (found, body) = get(path, token).await;
    assert_eq!(found, status);
    match status {
        200 => assert_eq!(body, b"weights"),
        _ => {
            let problem: Problem = serde_json::from_slice(&body).expect("a problem document");
            assert_eq!(problem.status, status);
        }
    }
}
