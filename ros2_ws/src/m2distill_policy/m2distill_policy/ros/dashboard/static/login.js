"use strict";

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const problem = document.getElementById("problem");
  problem.textContent = "";
  try {
    const answer = await fetch("/login", { method: "POST", body: document.getElementById("token").value });
    if (answer.ok) location.replace("/");
    else problem.textContent = await answer.text();
  } catch {
    problem.textContent = "no connection to the dashboard";
  }
});

// Before this script the browser would send the form by itself, and lose the token.
for (const field of document.querySelectorAll("#login input, #login button")) field.disabled = false;
document.getElementById("token").focus();
