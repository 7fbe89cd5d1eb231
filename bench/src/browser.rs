//! A real browser, told what to do by its debugging protocol over two pipes.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Reads its own clock: the end of the load event, and the first paint, which may still be to come.
const TIMES: &str = "new Promise(told => {
    const paint = () => performance.getEntriesByName('first-contentful-paint')[0]?.startTime
        ?? performance.getEntriesByName('first-paint')[0]?.startTime;
    const look = tries => {
        const loaded = performance.getEntriesByType('navigation')[0].loadEventEnd;
        if (loaded > 0 && (paint() !== undefined || tries > 40)) told([loaded, paint() ?? loaded]);
        else setTimeout(look, 50, tries + 1);
    };
    look(0);
})";

/// What a page was like.
#[derive(Debug)]
pub struct Seen {
    /// From the start of the navigation to the end of the load event.
    pub loaded: Duration,
    /// From the start of the navigation to the first paint, which may come before the page is complete; of a page without any, to the
    /// end of the load event.
    pub painted: Duration,
    /// What it has said on its console.
    pub complaints: Vec<String>,
}

/// A browser. It ends with this.
pub struct Browser {
    child: Child,
    profile: PathBuf,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    calls: u64,
    events: Vec<Value>,
}

impl Browser {
    /// Starts Chromium without a window and without any network; its profile is a folder of its own.
    pub fn start(program: &Path, profile: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(profile);
        // It wants its pipes as descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1"#])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("Chromium can't be started")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to, from) = pipes.context("Chromium has no pipes")?;
        Ok(Self { child, profile: profile.to_owned(), to, from: BufReader::new(from), calls: 0, events: Vec::new() })
    }

    /// Opens a page in a new tab, and closes it.
    pub fn open(&mut self, page: &Path) -> Result<Seen> {
        let target = self.call(None, "Target.createTarget", &json!({"url": "about:blank"}))?["targetId"].clone();
        let attached = self.call(None, "Target.attachToTarget", &json!({"targetId": target, "flatten": true}))?;
        let session = attached["sessionId"].as_str().context("a tab without a session")?.to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.call(Some(&session), domain, &json!({}))?;
        }
        self.events.clear();
        let url = format!("file://{}", page.display());
        let answer = self.call(Some(&session), "Page.navigate", &json!({"url": url}))?;
        if let Some(problem) = answer["errorText"].as_str() {
            bail!("{problem}");
        }
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive()?;
            self.events.push(event);
        }
        let asked = json!({"expression": TIMES, "awaitPromise": true, "returnByValue": true});
        let times = self.call(Some(&session), "Runtime.evaluate", &asked)?["result"]["value"].clone();
        let millis = |place: usize| {
            let value = times[place].as_f64().with_context(|| format!("the page tells no times: {times}"))?;
            Ok::<_, anyhow::Error>(Duration::from_secs_f64(value / 1_000.0))
        };
        let (loaded, painted) = (millis(0)?, millis(1)?);
        self.call(None, "Target.closeTarget", &json!({"targetId": target}))?;
        let told = ["Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"];
        let complaints = self.events.iter().filter(|event| told.iter().any(|name| event["method"] == *name));
        Ok(Seen { loaded, painted, complaints: complaints.map(|event| event["params"].to_string()).collect() })
    }

    fn call(&mut self, session: Option<&str>, method: &str, params: &Value) -> Result<Value> {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes())?;
        self.to.flush()?;
        loop {
            let mut answer = self.receive()?;
            if answer["id"] != self.calls {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("{method}: {error}");
            } else {
                return Ok(answer["result"].take());
            }
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message)?;
        if message.pop().is_none() {
            bail!("Chromium has ended");
        }
        Ok(serde_json::from_slice(&message)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers end with it only if it ends by itself.
        if self.call(None, "Browser.close", &json!({})).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}
