//! The page's answers: what is there, for whom, and that nothing in them runs or can be changed.

use super::*;
use http_body_util::BodyExt;

fn ask(method: Method, target: &str, host: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(target);
    if let Some(host) = host {
        request = request.header(header::HOST, host);
    }
    Page::new(SharedFleet::for_page(), Readiness::default()).answer(&request.body(()).unwrap())
}

async fn body(answer: Answer) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn page_style_script_and_figures_are_served_and_nothing_else() {
    for (target, kind, part) in [
        ("/", "text/html; charset=utf-8", "<table id=\"fleet\""),
        ("/page.css", "text/css; charset=utf-8", "prefers-color-scheme"),
        ("/page.js", "text/javascript; charset=utf-8", "/fleet.json"),
        ("/fleet.json", "application/json", "\"shown\":[]"),
        ("/fleet.json?find=shop%2Forders&other=1", "application/json", "\"found\":0"),
    ] {
        let answer = ask(Method::GET, target, Some("localhost:8090"));
        assert_eq!((answer.status(), answer.headers()[header::CONTENT_TYPE].to_str().unwrap()), (StatusCode::OK, kind), "{target}");
        let text = body(answer).await;
        assert!(text.contains(part), "{target}: {text}");
    }
    for target in ["/metrics", "/debug/decisions", "/page", "/../fleet.json"] {
        assert_eq!(ask(Method::GET, target, Some("localhost")).status(), StatusCode::NOT_FOUND, "{target}");
    }
}

#[test]
fn nothing_but_get_is_taken() {
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::CONNECT, Method::TRACE] {
        let answer = ask(method.clone(), "/", Some("localhost"));
        assert_eq!(
            (answer.status(), &answer.headers()[header::ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET, HEAD")),
            "{method}"
        );
    }
    assert_eq!(ask(Method::HEAD, "/", Some("localhost")).status(), StatusCode::OK);
}

#[test]
fn who_asks_for_another_host_is_another_site_s_page() {
    for host in ["localhost", "localhost:8090", "127.0.0.1:41327", "[::1]:8090", "[::1]", "LOCALHOST:1"] {
        assert_eq!(ask(Method::GET, "/fleet.json", Some(host)).status(), StatusCode::OK, "{host}");
    }
    for host in [
        None,
        Some(""),
        Some("evil.example"),
        Some("evil.example:8090"),
        Some("localhost.evil.example"),
        Some("127.0.0.1.evil.example:80"),
        Some("localhost:x"),
    ] {
        assert_eq!(ask(Method::GET, "/fleet.json", host).status(), StatusCode::MISDIRECTED_REQUEST, "{host:?}");
    }
}

#[test]
fn every_answer_forbids_what_the_page_does_not_need() {
    for (method, target, host) in
        [(Method::GET, "/", "localhost"), (Method::GET, "/fleet.json", "evil"), (Method::POST, "/", "localhost"), (Method::GET, "/no", "localhost")]
    {
        let answer = ask(method, target, Some(host));
        for (name, value) in HEADERS {
            assert_eq!(answer.headers().get(&name), Some(&HeaderValue::from_static(value)), "{target}: {name}");
        }
        assert!(!answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }
    assert!(POLICY.starts_with("default-src 'none';") && !POLICY.contains("unsafe"));
}

#[test]
fn names_and_messages_go_into_the_page_as_text_and_nothing_comes_from_elsewhere() {
    for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "setAttribute(\"on", "javascript:"] {
        assert!(!SCRIPT.contains(way), "{way}");
    }
    for (name, text) in [("page.html", HTML), ("page.css", STYLE), ("page.js", SCRIPT)] {
        assert!(!text.contains("://") && !text.contains("@import") && !text.contains("url("), "{name} asks elsewhere");
    }
    for inline in ["<style", "style=", "onclick", "onload", "<script>"] {
        assert!(!HTML.contains(inline), "{inline}: the policy forbids it");
    }
}
