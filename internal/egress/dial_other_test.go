//go:build !linux

package egress

import "testing"

// mute needs a queue of connections whose length is known.
func mute(*testing.T, string) {}
