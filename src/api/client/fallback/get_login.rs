//! GET /_matrix/static/client/login/ — Client-Server API, "Login Fallback".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_core::html::escape;
use http::StatusCode;

use crate::app::App;
use crate::error::Result;

/// Logs in with what the form has and the parameters of the page's address, and hands the answer to the client.
const SCRIPT: &str = r#"const form = document.querySelector("form");
const wrong = document.querySelector(".wrong");
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    wrong.textContent = "";
    const asked = new URLSearchParams(window.location.search);
    const body = {
        type: "m.login.password",
        identifier: { type: "m.id.user", user: form.user.value },
        password: form.password.value,
    };
    for (const name of ["device_id", "initial_device_display_name"]) {
        if (asked.has(name)) body[name] = asked.get(name);
    }
    if (asked.get("refresh_token") === "true") body.refresh_token = true;
    try {
        const response = await fetch("/_matrix/client/v3/login", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
        const answer = await response.json();
        if (!response.ok) throw new Error(answer.error || "The login failed.");
        form.hidden = true;
        document.querySelector(".done").hidden = false;
        if (window.matrixLogin && window.matrixLogin.onLogin) window.matrixLogin.onLogin(answer);
    } catch (error) {
        wrong.textContent = error.message;
    }
});"#;

/// A page on which a person logs in for a client that shows no login of its own.
pub async fn get_login(State(app): State<Arc<App>>) -> Result<Response> {
    let content = format!(
        "<form><p class=\"wrong\"></p>\
         <label>User name<input name=\"user\" autocomplete=\"username\" required autofocus></label>\
         <label>Password<input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label>\
         <button>Log in</button></form>\
         <p class=\"done\" hidden>You are logged in to {}.</p>\
         <noscript><p>This page needs JavaScript.</p></noscript>",
        escape(app.server_name.as_str())
    );
    let title = "Log in";
    super::page(&app, StatusCode::OK, title, &content, SCRIPT)
}
