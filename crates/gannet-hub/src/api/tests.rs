//! The HTTP interface, without sockets.

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request as HttpRequest},
};
use gannet::ConnId;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    net::fake::FakeNet,
    session::Sessions,
    settings::Settings,
    store::{Limits, sqlite::SqliteStore},
};

struct Site {
    net: FakeNet,
    key: ApiKey,
    router: Router,
    _dir: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: header::HeaderMap,
    body: Vec<u8>,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            history: 10,
            key_ms: 60_000,
        };
        let store = SqliteStore::open(&dir.path().join("hub.db"), limits)
            .await
            .unwrap();
        let net = FakeNet::default();
        let hub = Hub {
            net: net.clone(),
            store: Arc::new(store),
            sessions: Sessions::open(&dir.path().join("sessions.db"))
                .await
                .unwrap(),
            settings: Arc::new(Settings {
                max_data: 1000,
                ..Settings::default()
            }),
        };
        let key = ApiKey::generate().unwrap();
        Site {
            net,
            key: key.clone(),
            router: router(hub, key),
            _dir: dir,
        }
    }

    async fn ask(&self, request: HttpRequest<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let request = HttpRequest::get(path).header("authorization", self.bearer());
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, body: impl Into<Body>) -> Answer {
        let request = HttpRequest::post("/v1/messages")
            .header("authorization", self.bearer())
            .header("content-type", "application/json; charset=utf-8");
        self.ask(request.body(body.into()).unwrap()).await
    }

    async fn post_json(&self, body: Value) -> Answer {
        self.post(body.to_string()).await
    }

    fn bearer(&self) -> String {
        format!("bearer {}", self.key.reveal())
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status, code and text of an error.
    fn error(&self) -> (u16, String, String) {
        let json = self.json();
        let text = |name: &str| json["error"][name].as_str().unwrap().to_owned();
        (self.status, text("code"), text("msg"))
    }
}

#[tokio::test]
async fn a_message_to_a_channel_is_stored_and_pushed() {
    let site = Site::new().await;
    let ann = ConnId::from_u64(1);
    site.net.connect(ann);
    site.net.subscribe(ann, "channel:room").await.unwrap();
    let message = json!({
        "to": "channel:room", "event": "order", "from": "shop", "data": {"table": 7}, "key": "k"
    });
    let answer = site.post_json(message.clone()).await;
    assert_eq!(answer.status, 202);
    let accepted = answer.json();
    assert_eq!(
        (&accepted["offset"], &accepted["repeated"]),
        (&json!(1), &json!(false))
    );
    let push = site.net.take(ann, |_| true).pop().unwrap();
    assert_eq!(push["id"], accepted["id"]);
    assert_eq!(
        (&push["event"], &push["from"], &push["data"]["table"]),
        (&json!("order"), &json!("shop"), &json!(7))
    );
    let again = site.post_json(message).await.json();
    assert_eq!(
        (&again["id"], &again["repeated"]),
        (&accepted["id"], &json!(true))
    );

    let history = site.get("/v1/channels/room/history?since=0&limit=5").await;
    assert_eq!(history.status, 200);
    assert_eq!(history.json()["messages"].as_array().unwrap().len(), 1);
    assert_eq!(history.json()["messages"][0]["key"], json!("k"));
}

#[tokio::test]
async fn a_message_to_a_user_reaches_who_is_there() {
    let site = Site::new().await;
    let (phone, tablet) = (ConnId::from_u64(1), ConnId::from_u64(2));
    for conn in [phone, tablet] {
        site.net.connect(conn);
        site.net.subscribe(conn, "user:ann").await.unwrap();
    }
    let message = json!({"to": "user:ann", "data": "hi", "key": "k"});
    let answer = site.post_json(message.clone()).await;
    assert_eq!((answer.status, &answer.json()["reached"]), (202, &json!(2)));
    for conn in [phone, tablet] {
        let push = site.net.take(conn, |_| true).pop().unwrap();
        assert_eq!(
            (&push["user"], &push["data"]),
            (&json!("ann"), &json!("hi"))
        );
        assert!(push.get("offset").is_none());
    }
    let again = site.post_json(message).await.json();
    assert_eq!(
        (&again["reached"], &again["repeated"]),
        (&json!(0), &json!(true))
    );
    assert!(site.net.take(phone, |_| true).is_empty());
    let nobody = site.post_json(json!({"to": "user:bob", "data": 1})).await;
    assert_eq!((nobody.status, &nobody.json()["reached"]), (202, &json!(0)));
}

#[tokio::test]
async fn nothing_without_the_key() {
    let site = Site::new().await;
    let paths = [
        (Method::POST, "/v1/messages"),
        (Method::GET, "/v1/channels/room/history"),
        (Method::GET, "/v1/channels/room/presence"),
    ];
    for (method, path) in paths {
        for shown in [
            None,
            Some("Bearer wrong"),
            Some("Bearer"),
            Some("Basic x"),
            Some(""),
        ] {
            let mut request = HttpRequest::builder().method(method.clone()).uri(path);
            if let Some(shown) = shown {
                request = request.header("authorization", shown);
            }
            let answer = site.ask(request.body(Body::empty()).unwrap()).await;
            assert_eq!(
                (answer.status, answer.error().1.as_str()),
                (401, "unauthorized")
            );
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
}

#[tokio::test]
async fn errors_say_what_and_where() {
    let site = Site::new().await;
    let code = async |body: &str| site.post(body.to_owned()).await.error();
    assert_eq!(code("{").await.0, 400);
    assert_eq!(
        code("{\n  \"to\": \"user:ann\",\n}").await.2,
        "trailing comma at line 3 column 1"
    );
    let (status, code_, msg) = code(r#"{"data": 1}"#).await;
    assert_eq!((status, code_.as_str()), (422, "bad_request"));
    assert!(msg.contains("missing field `to`"), "{msg}");
    let (status, _, msg) = code(r#"{"to": "ann", "data": 1}"#).await;
    assert_eq!(status, 422);
    assert!(msg.contains("user:NAME or channel:NAME"), "{msg}");
    let (status, _, msg) = code(r#"{"to": "user:ann", "data": 1, "evnt": "x"}"#).await;
    assert_eq!(status, 422);
    assert!(msg.contains("`evnt`"), "{msg}");
    assert_eq!(
        code(&format!(
            r#"{{"to":"user:a","data":"{}"}}"#,
            "x".repeat(1001)
        ))
        .await
        .0,
        413
    );
    assert_eq!(code(&"x".repeat(9000)).await.0, 413);
    assert_eq!(site.post(vec![b'"', 0xff, b'"']).await.error().0, 400);

    let form = HttpRequest::post("/v1/messages")
        .header("authorization", site.bearer())
        .header("content-type", "text/plain");
    let answer = site.ask(form.body(Body::from("{}")).unwrap()).await;
    assert_eq!(
        (answer.status, answer.error().1.as_str()),
        (415, "not_json")
    );

    assert_eq!(site.get("/v1/nothing").await.error().0, 404);
    assert_eq!(site.get("/v1/messages").await.error().0, 405);
    assert_eq!(site.get("/v1/socket").await.status, 426);
    assert_eq!(site.get("/v1/channels/a%20b/history").await.error().0, 422);
    assert_eq!(site.get("/v1/channels/%ff/history").await.error().0, 422);
    assert_eq!(
        site.get("/v1/channels/a/history?limit=x").await.error().0,
        422
    );
    assert_eq!(
        site.get("/v1/channels/a/history?since=1&before=2")
            .await
            .error()
            .0,
        422
    );
}

#[tokio::test]
async fn presence_is_readable_by_programs() {
    let site = Site::new().await;
    let ann = ConnId::from_u64(1);
    site.net.connect(ann);
    site.net.bind(ann, &"ann".parse().unwrap()).await.unwrap();
    site.net.subscribe(ann, "channel:Küche").await.unwrap();
    let answer = site.get("/v1/channels/K%C3%BCche/presence").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({"channel": "Küche", "users": ["ann"], "count": 1})
    );
}

#[tokio::test]
async fn the_page_needs_no_key_and_allows_no_foreign_script() {
    let site = Site::new().await;
    let files = [
        "chat.js",
        "client.js",
        "memory.js",
        "view.js",
        "style.css",
        "favicon.svg",
    ];
    for path in [String::from("/")]
        .into_iter()
        .chain(files.map(|file| format!("/{file}")))
    {
        let answer = site
            .ask(HttpRequest::get(&path).body(Body::empty()).unwrap())
            .await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.is_empty(), "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        let known = HttpRequest::get(&path).header("if-none-match", &answer.headers["etag"]);
        let answer = site.ask(known.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{path}");
    }
    let page = site
        .ask(HttpRequest::get("/").body(Body::empty()).unwrap())
        .await;
    let page = String::from_utf8(page.body).unwrap();
    assert!(
        !page.contains("<style") && !page.contains(" onclick"),
        "the policy forbids inline code"
    );
    assert_eq!(site.get("/healthz").await.body, b"ok\n");
}
