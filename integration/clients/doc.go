// Package clients runs programs that others wrote, unmodified, against the built
// proxy and the simulator: what a security team has already and will not rewrite.
// Each has a login and settings of its own, and no credential that works anywhere.
//
// What needs programs beyond Go stands behind the build tag clients; make clients
// runs it. The rest runs with all other tests.
package clients
