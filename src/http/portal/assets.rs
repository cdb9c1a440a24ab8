//! Style and scripts: part of the binary, and under an address that changes with them, so that browsers may keep them for ever.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use std::sync::LazyLock;

/// A file.
#[derive(Debug)]
struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of them. Those of others are unchanged: assets/README.md says where they are from.
static ASSETS: [Asset; 3] = [
    Asset { name: "portal.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("../../../assets/portal.css") },
    Asset { name: "htmx.js", content_type: SCRIPT, bytes: include_bytes!("../../../assets/htmx.min.js") },
    Asset { name: "sse.js", content_type: SCRIPT, bytes: include_bytes!("../../../assets/htmx-sse.min.js") },
];

/// The part of the address that changes with them.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: Vec<u8> = ASSETS.iter().flat_map(|asset| digest(&SHA256, asset.bytes).as_ref().to_vec()).collect();
    digest(&SHA256, &all).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
});

/// Below which all of them are.
pub(super) fn base() -> String {
    format!("/portal/assets/{}", *VERSION)
}

/// One of them.
pub(super) fn serve(version: &str, name: &str) -> Response {
    let asset = ASSETS.iter().find(|asset| asset.name == name).filter(|_| version == *VERSION);
    match asset {
        Some(asset) => {
            let headers =
                [(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (headers, Body::from(asset.bytes)).into_response()
        }
        None => (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")], "there is no such file\n").into_response(),
    }
}
