// Logs in with each credential of @azure/identity, with the settings that a user
// gives: an authority host, a tenant, and secrets of theirs.
import {
  ClientCertificateCredential,
  ClientSecretCredential,
  DeviceCodeCredential,
  UsernamePasswordCredential,
} from "@azure/identity";
import { report } from "./alerts.mjs";

const { AUTHORITY_HOST, API, TENANT, CLIENT_ID, CLIENT_SECRET, CERTIFICATE, USERNAME_, PASSWORD, OWN_AUTHORITY } = process.env;
const scope = "https://api.securitycenter.microsoft.com/.default";
const options = { authorityHost: AUTHORITY_HOST, disableInstanceDiscovery: OWN_AUTHORITY === "yes" };

const using = (credential) => async () => {
  const got = await credential.getToken(scope);
  return { token: got.token, expires: got.expiresOnTimestamp };
};

await report(API, {
  ClientSecretCredential: using(new ClientSecretCredential(TENANT, CLIENT_ID, CLIENT_SECRET, options)),
  ClientCertificateCredential: using(new ClientCertificateCredential(TENANT, CLIENT_ID, CERTIFICATE, options)),
  DeviceCodeCredential: using(
    new DeviceCodeCredential({
      ...options,
      tenantId: TENANT,
      clientId: CLIENT_ID,
      userPromptCallback: ({ message }) => console.error(message),
    }),
  ),
  UsernamePasswordCredential: using(new UsernamePasswordCredential(TENANT, CLIENT_ID, USERNAME_, PASSWORD, options)),
});
