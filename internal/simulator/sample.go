package simulator

import "strings"

// MachineID is the id of a machine in the first tenant's fleet, for examples to
// paste. It is empty when the fleet has none.
func (s *Simulator) MachineID() string {
	s.directory.mu.Lock()
	t := s.directory.tenants[strings.ToLower(s.directory.cfg.Tenants[0].ID)]
	s.directory.mu.Unlock()
	f := t.fleet()
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.machines) == 0 {
		return ""
	}
	return f.machines[0].ID
}
