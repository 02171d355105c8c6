//! The dashboard: one page and what it needs, from the binary itself. It asks nobody but this server for anything.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// The files, with their types.
const FILES: [(&str, &str, &[u8]); 6] = [
    ("/", HTML, include_bytes!("dashboard/index.html")),
    ("/app.js", JS, include_bytes!("dashboard/app.js")),
    ("/style.css", CSS, include_bytes!("dashboard/style.css")),
    (
        "/icon.svg",
        "image/svg+xml",
        include_bytes!("dashboard/icon.svg"),
    ),
    (
        "/uPlot.iife.min.js",
        JS,
        include_bytes!("dashboard/uPlot.iife.min.js"),
    ),
    (
        "/uPlot.min.css",
        CSS,
        include_bytes!("dashboard/uPlot.min.css"),
    ),
];

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Traffic is untrusted text: even if some of it became markup, nothing of it would run.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes.
pub(super) fn routes() -> Router {
    FILES
        .iter()
        .fold(Router::new(), |router, &(path, kind, bytes)| {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            router.route(
                path,
                get(move || async move { (headers, bytes).into_response() }),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere_and_nothing_becomes_markup() {
        for (path, _, bytes) in FILES {
            let text = std::str::from_utf8(bytes).expect("text");
            if path.contains("uPlot") {
                continue;
            }
            for wrong in [
                "//cdn",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(wrong), "{path} has {wrong}");
            }
        }
        let page = std::str::from_utf8(FILES[0].2).expect("text");
        for (path, ..) in &FILES[1..] {
            assert!(page.contains(&path[1..]), "{path} is not used");
        }
        assert!(!page.contains("style=") && !page.contains("onclick"));
    }
}
