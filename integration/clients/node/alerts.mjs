// alerts reads all alerts, page after page, as Microsoft's samples do: whatever
// credential was used, with its token, following @odata.nextLink.
export async function alerts(base, token) {
  const ids = [];
  let pages = 0;
  for (let next = `${base}/api/alerts`; next; pages++) {
    const response = await fetch(next, { headers: { Authorization: `Bearer ${token}` } });
    const body = await response.json();
    if (!response.ok) {
      throw new Error(`${next}: ${response.status} ${body.error.code}: ${body.error.message}`);
    }
    ids.push(...body.value.map((alert) => alert.id));
    next = body["@odata.nextLink"];
  }
  return { ids, pages };
}

// report runs each of the ways to log in, and prints a line of JSON for it.
export async function report(base, ways) {
  for (const [way, login] of Object.entries(ways)) {
    const { token, expires } = await login();
    const left = (expires - Date.now()) / 1000;
    console.log(JSON.stringify({ way, left, parts: token.split(".").length, ...(await alerts(base, token)) }));
  }
}
