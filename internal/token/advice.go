package token

// What several rows say.
const (
	signInAgain = "The user signs in again: defender-proxy login {name} --config FILE."
	federated   = "Compare issuer, subject and audience of the token with those under App registrations, Certificates & secrets, Federated credentials; they are compared letter by letter."
)

// adviceByCode is by AADSTS code. Meanings are from "Microsoft Entra
// authentication and authorization error codes"
// (learn.microsoft.com/entra/identity-platform/reference-error-codes, stored
// copy of MicrosoftDocs/entra-docs read 2026-11). Codes marked * are not on
// that page; their meaning is the text that Entra sends with them, as quoted in
// public bug reports.
//
// Microsoft warns that codes change. A code decides words and whether to call a
// failure transient, nothing else.
var adviceByCode = map[int]advice{
	// The secret.
	7000215: {
		sentence: "Entra ID does not know the client secret of application {app}.",
		remedy:   "Set the secret's value, not its ID, without spaces or line ends around it; or create a new one under App registrations, Certificates & secrets.",
	},
	7000222: {
		sentence: "The client secret of application {app} has expired.",
		remedy:   "Create a new one under App registrations, Certificates & secrets, and put it where the configuration reads it.",
	},
	7000218: {
		sentence: "Entra ID found no client secret in the request of application {app}.",
		remedy:   "Check that the secret's file or variable is not empty, and that no egress proxy changes the request.",
	},
	70002: {
		sentence: "Entra ID does not accept the credential of application {app}.",
		remedy:   "Check the client secret; create a new one under App registrations, Certificates & secrets, if in doubt.",
	},
	700025: {
		sentence: "Application {app} is registered as a public client, which takes no client secret.",
		remedy:   "Use an application that is registered as a confidential client (platform Web, not a single-page or desktop application).",
	},

	// The application and the tenant.
	700016: {
		sentence: "Application {app} is not known in tenant {tenant}.",
		remedy:   "Check client_id and tenant id. If both are right, an administrator of the tenant consents at {consent}",
	},
	7000229: { // *
		sentence: "Application {app} has no service principal in tenant {tenant}.",
		remedy:   "An administrator of the tenant adds it by consenting at {consent}",
	},
	7000112: {
		sentence: "Application {app} is disabled in tenant {tenant}.",
		remedy:   "An administrator enables it: Enterprise applications, Properties, \"Enabled for users to sign in\".",
	},
	90002: {
		sentence: "There is no tenant {tenant} in this cloud.",
		remedy:   "Check the tenant id, and that the tenant's cloud (commercial, gcc, gcc-high, dod) is the configured one.",
	},
	90038: {
		sentence: "Tenant {tenant} belongs to another national cloud than the one that was asked.",
		remedy:   "Correct the tenant's cloud in the configuration.",
	},

	// The audience and consent.
	500011: {
		sentence: "The API {audience} is not known in tenant {tenant}.",
		remedy:   "Check that the tenant has the Defender product and that the audience is right for its cloud; then an administrator consents at {consent}",
	},
	50001: {
		sentence: "The API {audience} does not exist or is disabled in tenant {tenant}.",
		remedy:   "Check the audience for the tenant's cloud, and that the tenant has the Defender product.",
	},
	650052: {
		sentence: "Tenant {tenant} has not subscribed to the API {audience}.",
		remedy:   "Check that the tenant has the Defender product, or take the service out of its configuration.",
	},
	65001: {
		sentence: "Nobody has consented to application {app} in tenant {tenant}.",
		remedy:   "An administrator of the tenant consents at {consent}",
	},
	70011: {
		sentence: "Entra ID does not accept the scope {audience}/.default.",
		remedy:   "Check the audience in the cloud's configuration: it is a URI without /.default.",
	},
	1002012: { // *
		sentence: "Entra ID does not accept the scope {audience}/.default for an application.",
		remedy:   "Check the audience in the cloud's configuration: it is a URI without /.default.",
	},
	901002: {
		sentence: "This endpoint of Entra ID does not take resource=.",
		remedy:   "Set token_version: v2.",
	},
	900144: {
		sentence: "Entra ID misses a parameter in the request.",
		remedy:   "Check client_id, the secret and token_version, and that no egress proxy changes the request.",
	},

	65005: {
		sentence: "Application {app} does not ask for permissions of the API {audience}.",
		remedy:   "Add the API's permissions under App registrations, API permissions; then an administrator consents at {consent}",
	},
	650056: {
		sentence: "Application {app} asks for no permission of the API {audience}, or nobody has consented in tenant {tenant}.",
		remedy:   "Add the API's permissions under App registrations, API permissions; then an administrator consents at {consent}",
	},
	650057: {
		sentence: "Application {app} does not ask for permissions of the API {audience}.",
		remedy:   "Add the API's permissions under App registrations, API permissions; then an administrator consents at {consent}",
	},
	90094: {
		sentence: "Application {app} needs the consent of an administrator of tenant {tenant}.",
		remedy:   "An administrator of the tenant consents at {consent}",
	},
	90099: {
		sentence: "Application {app} is not authorized in the customer's tenant {tenant}.",
		remedy:   "An administrator of the tenant consents at {consent}",
	},
	70001: {
		sentence: "Application {app} is not known or disabled in tenant {tenant}.",
		remedy:   "Check client_id and tenant id, and that the application is enabled. If both are right, an administrator of the tenant consents at {consent}",
	},
	700011: {
		sentence: "Application {app} is not known in tenant {tenant}.",
		remedy:   "Check client_id and tenant id. If both are right, an administrator of the tenant consents at {consent}",
	},
	50059: {
		sentence: "Entra ID could not tell which tenant is meant.",
		remedy:   "Check the tenant id.",
	},
	900382: {
		sentence: "Application {app} is of another national cloud than tenant {tenant}.",
		remedy:   "Register an application in the tenant's own cloud.",
	},
	900432: {
		sentence: "Application {app} is of another national cloud than tenant {tenant}.",
		remedy:   "Register an application in the tenant's own cloud.",
	},

	// Policies of the tenant.
	50131: {
		sentence: "A Conditional Access policy of tenant {tenant} refuses application {app} a token.",
		remedy:   "An administrator looks at the sign-in log for the policy, and lets the application or this network pass.",
	},
	53000: {
		sentence: "A Conditional Access policy of tenant {tenant} wants a device that is compliant.",
		remedy:   "An administrator lets this sign-in pass the policy; or use an application instead of a user.",
	},
	53001: {
		sentence: "A Conditional Access policy of tenant {tenant} wants a device that is joined to its domain.",
		remedy:   "An administrator lets this sign-in pass the policy; or use an application instead of a user.",
	},
	530034: {
		sentence: "The administrator's account is held to be at risk in its home tenant.",
		remedy:   "An administrator of the home tenant clears the risk.",
	},
	500021: {
		sentence: "Tenant restrictions of this network do not let requests through to tenant {tenant}.",
		remedy:   "Whoever runs the egress proxy adds the tenant to Restrict-Access-To-Tenants.",
	},
	53003: {
		sentence: "A Conditional Access policy of tenant {tenant} refuses application {app} a token.",
		remedy:   "An administrator looks at the sign-in log of service principals for the policy, and lets the application or this network pass.",
	},

	// Assertions and clocks.
	700024: { // *
		sentence: "The client assertion was outside its time when Entra ID read it.",
		remedy:   "Set this machine's clock (NTP).{clock}",
	},
	700027: {
		sentence: "Entra ID could not verify the client assertion of application {app}.",
		remedy:   "Upload the certificate that signs it under App registrations, Certificates & secrets, and set this machine's clock (NTP).{clock}",
	},

	50012: {
		sentence: "Entra ID could not verify the client assertion of application {app}.",
		remedy:   "Upload the certificate that signs it under App registrations, Certificates & secrets.",
	},
	900384: {
		sentence: "Entra ID could not verify the signature of the assertion.",
		remedy:   "Check that the token is one of the issuer that the application's federated credential names, and not cut off.",
	},
	700021: { // *
		sentence: "The client assertion names another application than {app}.",
		remedy:   "Check client_id, and that the token file belongs to this application.",
	},
	700030: {
		sentence: "The subject of the certificate is not authorized for application {app}.",
		remedy:   "Upload the certificate that is used, or trust its subject under the application's registration.",
	},
	500133: {
		sentence: "The assertion was outside its time when Entra ID read it.",
		remedy:   "Check that the token file is renewed by what wrote it, and set this machine's clock (NTP).{clock}",
	},
	70021: { // *
		sentence: "Application {app} has no federated credential that matches the presented token.",
		remedy:   federated,
	},
	700211: { // *
		sentence: "Application {app} has no federated credential for the issuer of the presented token.",
		remedy:   federated,
	},
	700212: { // *
		sentence: "Application {app} has no federated credential for the audience of the presented token.",
		remedy:   federated,
	},
	700213: { // *
		sentence: "Application {app} has no federated credential for the subject of the presented token.",
		remedy:   federated,
	},

	// Users.
	50034: {
		sentence: "The user does not exist in tenant {tenant}.",
		remedy:   "Check the user name and the tenant.",
		guarded:  true,
	},
	50126: {
		sentence: "The user name or the password is wrong.",
		remedy:   "Set the right password. Do not try often: Entra ID locks the account.",
		guarded:  true,
	},
	50053: {
		sentence: "The account is locked after too many wrong passwords, or this network's address is blocked.",
		remedy:   "Set the right password and wait; an administrator sees the reason in the sign-in log.",
		guarded:  true,
	},
	50055: {
		sentence: "The user's password has expired.",
		remedy:   "Change the password, and set the new one.",
		guarded:  true,
	},
	50057: {
		sentence: "The user's account is disabled.",
		remedy:   "An administrator enables it, or another account is configured.",
		guarded:  true,
	},
	50076: {
		sentence: "Tenant {tenant} asks the user for multifactor authentication, which a stored password cannot give.",
		remedy:   "Use a sign-in by a person, or an application instead of a user.",
	},
	50079: {
		sentence: "Tenant {tenant} asks the user to register for multifactor authentication.",
		remedy:   "The user signs in once in a browser and registers; or use an application instead of a user.",
	},
	50173: {
		sentence: "The user's sign-in was revoked.",
		remedy:   signInAgain,
	},
	700082: {
		sentence: "The user's sign-in has expired, because it was not used for too long.",
		remedy:   signInAgain,
	},
	70008: {
		sentence: "The user's sign-in has expired, because it was not used for too long.",
		remedy:   signInAgain,
	},
	70000: {
		sentence: "Entra ID does not accept the user's sign-in any more.",
		remedy:   signInAgain,
	},
	70043: {
		sentence: "A Conditional Access policy of tenant {tenant} asks the user to sign in more often than that.",
		remedy:   signInAgain + " Or an administrator takes the application out of the policy's sign-in frequency.",
	},
	700084: {
		sentence: "The user's sign-in was made through a single-page application, where it lasts a day at most.",
		remedy:   "Register the application's platform as mobile and desktop. " + signInAgain,
	},
	50089: {sentence: "The user's sign-in has expired.", remedy: signInAgain},
	50132: {sentence: "The user's sign-in ended because the password changed or expired.", remedy: signInAgain},
	50133: {sentence: "The user's sign-in ended because the password changed or expired.", remedy: signInAgain},
	50078: {sentence: "The user's multifactor authentication is too long ago for tenant {tenant}.", remedy: signInAgain},
	50072: {
		sentence: "Tenant {tenant} asks the user to register for multifactor authentication.",
		remedy:   "The user signs in once in a browser and registers; or use an application instead of a user.",
	},
	50074: {
		sentence: "Tenant {tenant} asks the user for multifactor authentication, which a stored password cannot give.",
		remedy:   "Use a sign-in by a person, or an application instead of a user.",
	},
	50158: {
		sentence: "Tenant {tenant} asks the user for a further proof that only a person can give.",
		remedy:   "Use a sign-in by a person, or an application instead of a user.",
	},
	50056: {sentence: "The user has no password in the directory.", remedy: "Check the user name; or use a sign-in by a person.", guarded: true},
	50064: {sentence: "The user name or the password is wrong.", remedy: "Set the right password. Do not try often: Entra ID locks the account.", guarded: true},
	50144: {sentence: "The user's password has expired.", remedy: "Change the password, and set the new one.", guarded: true},
	50020: {sentence: "The user is of another directory and no guest in tenant {tenant}.", remedy: "Invite the user as a guest, or sign in as a user of the tenant."},
	50105: {sentence: "The user is not assigned to application {app}.", remedy: "An administrator assigns the user: Enterprise applications, Users and groups."},
	65004: {sentence: "The user declined to consent to application {app}.", remedy: "Sign in again and consent, or an administrator consents for all at {consent}"},
	54005: {sentence: "The sign-in's code was used twice.", remedy: signInAgain},
	530035: {
		sentence: "The security defaults of tenant {tenant} refuse a sign-in with a stored password.",
		remedy:   "Use a sign-in by a person, or an application instead of a user.",
	},

	// What passes.
	50196: {
		sentence:  "Entra ID holds back application {app}, because it asked for the same token too often.",
		remedy:    "Wait some minutes. Other programs with the same application count too.",
		transient: true,
	},
	90055: {sentence: "Entra ID gets too many requests for tenant {tenant}.", remedy: "Wait; the proxy tries again.", transient: true},
	50033: {sentence: "Entra ID has a passing fault.", remedy: "Wait; the proxy tries again.", transient: true},
	90006: {sentence: "Entra ID is unavailable for a while.", remedy: "Wait; the proxy tries again.", transient: true},
	90012: {sentence: "Entra ID ran out of time.", remedy: "Wait; the proxy tries again.", transient: true},
	90024: {sentence: "Entra ID has a passing fault.", remedy: "Wait; the proxy tries again.", transient: true},
	90033: {sentence: "Entra ID's directory is unavailable for a while.", remedy: "Wait; the proxy tries again.", transient: true},
}
