// Logs in with MSAL for Node: an application with a secret, with a certificate and
// with an assertion, a user with a code on a device and with a password, and again
// from what MSAL keeps.
import { readFileSync } from "node:fs";
import { X509Certificate } from "node:crypto";
import { ConfidentialClientApplication, PublicClientApplication } from "@azure/msal-node";
import { report } from "./alerts.mjs";

const { AUTHORITY_HOST, API, TENANT, CLIENT_ID, CLIENT_SECRET, CERTIFICATE, USERNAME_, PASSWORD, OWN_AUTHORITY } = process.env;
const scopes = ["https://api.securitycenter.microsoft.com/.default"];

// An authority that is not Microsoft's has to be named as known.
const auth = {
  clientId: CLIENT_ID,
  authority: `${AUTHORITY_HOST}/${TENANT}`,
  ...(OWN_AUTHORITY === "yes" && { knownAuthorities: [new URL(AUTHORITY_HOST).host] }),
};
const pem = readFileSync(CERTIFICATE, "utf8");
const certificate = {
  thumbprintSha256: new X509Certificate(pem).fingerprint256.replaceAll(":", ""),
  privateKey: pem.match(/-----BEGIN PRIVATE KEY-----[^]*?-----END PRIVATE KEY-----/)[0],
};

const shown = ({ accessToken, expiresOn }) => ({ token: accessToken, expires: expiresOn.getTime() });
const application = (proof) => async () =>
  shown(await new ConfidentialClientApplication({ auth: { ...auth, ...proof } }).acquireTokenByClientCredential({ scopes }));

const people = new PublicClientApplication({ auth });

await report(API, {
  "application with a secret": application({ clientSecret: CLIENT_SECRET }),
  "application with a certificate": application({ clientCertificate: certificate }),
  "application with an assertion": application({ clientAssertion: CLIENT_SECRET }),
  "user with a code on a device": async () =>
    shown(await people.acquireTokenByDeviceCode({ scopes, deviceCodeCallback: ({ message }) => console.error(message) })),
  "user with a password": async () =>
    shown(await people.acquireTokenByUsernamePassword({ scopes, username: USERNAME_, password: PASSWORD })),
  "user who was here before": async () => {
    const [account] = await people.getTokenCache().getAllAccounts();
    return shown(await people.acquireTokenSilent({ scopes, account, forceRefresh: true }));
  },
});
