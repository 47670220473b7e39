package simulator

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

var machineSet = collection{name: "Machines"}

func machineHandlers() map[string]handler {
	return map[string]handler{
		"machines.list": list(machineSet, func(c *call) ([]machine, error) { return snapshot(c.fleet, &c.fleet.machines), nil }),
		"machines.get":  one("Machines", func(c *call) (machine, error) { return orProblem(c.fleet.machine(c.id())) }),
		"machines.alerts": list(alertSet, func(c *call) ([]alert, error) {
			m, p := c.fleet.machine(c.id())
			return c.fleet.alertsWhere(func(a *alert) bool { return a.MachineID == m.ID }), orNil(p)
		}),
		"machines.logonusers": list(collection{name: "Users"}, func(c *call) ([]user, error) {
			m, p := c.fleet.machine(c.id())
			var out []user
			for _, u := range m.users {
				out = append(out, c.fleet.users[u])
			}
			return out, orNil(p)
		}),
		"machines.findbyip":  list(machineSet, func(c *call) ([]machine, error) { return findByIP(c, "ip", 15*time.Minute) }),
		"machines.find":      list(machineSet, findLegacy),
		"machines.findbytag": list(machineSet, findByTag),
		"machines.update":    updateMachine,
		"machines.setDeviceValue": func(c *call) (reply, error) {
			f, p := c.object()
			if p != nil {
				return reply{}, p
			}
			value, p := f.oneOf("DeviceValue", "", deviceValues...)
			if p != nil {
				return reply{}, p
			}
			return changedMachine(c, c.id(), func(m *machine) { m.DeviceValue = value })
		},
		"machines.tags": func(c *call) (reply, error) {
			ch, _, p := readTagChange(c)
			if p != nil {
				return reply{}, p
			}
			return changedMachine(c, c.id(), ch)
		},
		"machines.addOrRemoveTagForMultipleMachines": tagMany,
	}
}

var deviceValues = []string{"Normal", "Low", "High"}

func (f *fleet) alertsWhere(keep func(*alert) bool) []alert {
	out := []alert{}
	for _, a := range snapshot(f, &f.alerts) {
		if keep(&a) {
			out = append(out, a)
		}
	}
	return out
}

func (f *fleet) machinesWhere(keep func(*machine) bool) []machine {
	out := []machine{}
	for _, m := range snapshot(f, &f.machines) {
		if keep(&m) {
			out = append(out, m)
		}
	}
	return out
}

// parseTime reads a time as the pages write it, with or without fractions and
// zone.
func parseTime(s string) (time.Time, bool) {
	v, ok := lexNumber(strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'"))
	t, isTime := v.(time.Time)
	return t, ok && isTime
}

// findByIP answers with the machines that had an address around a time within
// the last thirty days.
func findByIP(c *call, argument string, window time.Duration) ([]machine, error) {
	address := c.argument(argument)
	if net.ParseIP(address) == nil {
		return nil, problemf(http.StatusBadRequest, "InvalidIpAddress", "IP address %s is invalid.", address)
	}
	when, ok := parseTime(c.argument("timestamp"))
	if !ok {
		return nil, invalidInput("Invalid input timestamp: '%s'.", c.argument("timestamp"))
	}
	if when.Before(c.now.Add(-30 * day)) {
		return nil, invalidInput("Invalid input timestamp: it must be within the last 30 days.")
	}
	return c.fleet.machinesWhere(func(m *machine) bool {
		return m.LastIPAddress == address && m.LastSeen.Sub(when).Abs() <= window
	}), nil
}

// findLegacy is the older form of findbyip, which answers 404 for none.
func findLegacy(c *call) ([]machine, error) {
	out, err := findByIP(c, "key", 16*time.Minute)
	if err == nil && len(out) == 0 {
		err = notFound("machine with address", c.argument("key"))
	}
	return out, err
}

func findByTag(c *call) ([]machine, error) {
	tag, ok := c.options.custom["tag"]
	if !ok || tag == "" {
		return nil, missing("tag")
	}
	prefix := strings.EqualFold(c.options.custom["usestartswithfilter"], "true")
	return c.fleet.machinesWhere(func(m *machine) bool {
		return slices.ContainsFunc(m.MachineTags, func(t string) bool { return t == tag || prefix && strings.HasPrefix(t, tag) })
	}), nil
}

func changedMachine(c *call, id string, change func(*machine)) (reply, error) {
	m, p := c.fleet.changeMachine(id, change)
	if p != nil {
		return reply{}, p
	}
	return entity(c, "Machines", m)
}

// maxTags bounds the tags of a machine; the portal allows 200 characters each.
const maxTags = 100

// updateMachine replaces the tags: the page says so under "Response", and the
// contrary under "Limitations".
func updateMachine(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	tags, p := f.texts("machineTags")
	if p != nil {
		return reply{}, p
	}
	var value string
	if p := f.optionalOneOf("deviceValue", &value, deviceValues...); p != nil {
		return reply{}, p
	}
	if tags == nil && value == "" {
		return reply{}, missing("machineTags")
	}
	if len(tags) > maxTags {
		return reply{}, invalidInput("Invalid input machineTags: at most %d.", maxTags)
	}
	return changedMachine(c, c.id(), func(m *machine) {
		if tags != nil {
			m.MachineTags = tags
		}
		if value != "" {
			m.DeviceValue = value
		}
	})
}

// readTagChange reads Value and Action.
func readTagChange(c *call) (func(*machine), fields, *problem) {
	f, p := c.object()
	if p != nil {
		return nil, nil, p
	}
	tag, p := f.need("Value")
	if p != nil {
		return nil, nil, p
	}
	action, p := f.oneOf("Action", "", "Add", "Remove")
	if p != nil {
		return nil, nil, p
	}
	if len(tag) > 200 {
		return nil, nil, invalidInput("Invalid input Value: a tag has at most 200 characters.")
	}
	return func(m *machine) {
		without := []string{}
		for _, t := range m.MachineTags {
			if t != tag {
				without = append(without, t)
			}
		}
		m.MachineTags = without
		if action == "Add" && len(without) < maxTags {
			m.MachineTags = append(without, tag)
		}
	}, f, nil
}

func tagMany(c *call) (reply, error) {
	change, f, p := readTagChange(c)
	if p != nil {
		return reply{}, p
	}
	ids, p := f.batch("MachineIds", 500)
	if p != nil {
		return reply{}, p
	}
	for _, id := range ids {
		if _, p := c.fleet.machine(id); p != nil {
			return reply{}, p
		}
	}
	out := []any{}
	for _, id := range ids {
		m, p := c.fleet.changeMachine(id, change)
		if p != nil {
			return reply{}, p
		}
		out = append(out, m)
	}
	return reply{body: page{Context: c.metadata() + "Machines", Value: out}}, nil
}
