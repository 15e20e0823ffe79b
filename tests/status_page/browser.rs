//! A headless Chromium, driven over its DevTools protocol.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use support::DEADLINE;
use tungstenite::{Message, WebSocket};

/// Names under which Chromium is installed.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// One page of a browser that nothing else uses.
pub(crate) struct Browser {
    process: Child,
    profile: PathBuf,
    socket: WebSocket<TcpStream>,
    session: String,
    last_id: u64,
    /// What the page complained about: errors, exceptions, violations of its policy.
    pub(crate) complaints: VecDeque<String>,
    /// Addresses that it asked for.
    pub(crate) requests: Vec<String>,
}

impl Browser {
    /// Starts one; `None`, and a message, where there is none.
    pub(crate) fn start() -> Option<Browser> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("fortnight-page-{}-{number}", std::process::id()));
        let Some(mut process) = NAMES.iter().find_map(|name| spawn(name, &profile)) else {
            support::skipped("Chromium is not installed (Debian package chromium)");
            return None;
        };
        let address = listening_address(&mut process);
        let host = address.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).expect("an address");
        let stream = TcpStream::connect(host).expect("a connection to the browser");
        stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout");
        let (socket, _) = tungstenite::client(address.as_str(), stream).expect("a WebSocket");
        let mut browser = Browser {
            process,
            profile,
            socket,
            session: String::new(),
            last_id: 0,
            complaints: VecDeque::new(),
            requests: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attach = json!({"targetId": target, "flatten": true});
        let session = browser.call("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        browser.session = session;
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Opens an address.
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
    }

    /// The size of the window, as a phone or not, and the colours that the user prefers.
    pub(crate) fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let mobile = width < 500;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}),
        );
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// The value of a JavaScript expression in the page.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, condition: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.evaluate(condition) != Value::Bool(true) {
            if Instant::now() > deadline {
                let page = self.evaluate("document.body.innerText");
                panic!("never true: {condition}\n{}", page.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        // Only with the number of its key does the tabulator move the focus.
        let number = if key == "Tab" { 9 } else { 0 };
        for kind in ["keyDown", "keyUp"] {
            self.call(
                "Input.dispatchKeyEvent",
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number}),
            );
        }
    }

    /// Calls a method of the DevTools protocol.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method});
        message["params"] = params;
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string())).expect("a message to the browser");
        loop {
            let Message::Text(text) = self.socket.read().expect("a message from the browser") else {
                continue;
            };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == json!(self.last_id) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push_back(params["entry"]["text"].to_string());
            }
            Some("Runtime.exceptionThrown") => self.complaints.push_back(params.to_string()),
            Some("Network.requestWillBeSent") => {
                self.requests.extend(params["request"]["url"].as_str().map(str::to_owned));
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has processes of its own, all in one group.
        if let Some(group) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.wait();
        // Its last process may still be at work on a file: then it is tried again.
        for _ in 0..50 {
            if std::fs::remove_dir_all(&self.profile).is_ok() || !self.profile.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(name: &str, profile: &Path) -> Option<Child> {
    let mut command = Command::new(name);
    command
        .args(["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        // The authority of the tests' certificates is nobody's.
        .arg("--ignore-certificate-errors")
        .args(["--remote-debugging-port=0", "--remote-allow-origins=*"])
        .arg(format!("--user-data-dir={}", profile.display()));
    if rustix::process::geteuid().is_root() {
        // Its sandbox refuses to work for root.
        command.arg("--no-sandbox");
    }
    let command =
        command.arg("about:blank").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.process_group(0).spawn().ok()
}

/// Waits until the browser says where it listens; what it says after that is read off.
fn listening_address(process: &mut Child) -> String {
    let mut lines = BufReader::new(process.stderr.take().expect("standard error")).lines();
    let mut said = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        if let Some(address) = line.strip_prefix("DevTools listening on ") {
            let address = address.to_owned();
            std::thread::spawn(move || lines.for_each(drop));
            return address;
        }
        said.push(line);
    }
    panic!("the browser does not listen; it says:\n{}", said.join("\n"));
}
