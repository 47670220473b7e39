package simulator

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// action is a machine action as the fleet keeps it. Its status is not kept: it
// follows from the time since it began.
type action struct {
	machineAction
	begun     time.Time
	cancelled bool
}

// view is the action as it stands now: Pending for one step, InProgress for
// another, then Succeeded.
func (a action) view(now time.Time, step time.Duration) machineAction {
	m := a.machineAction
	m.LastUpdateDateTimeUTC = at(now)
	switch age := now.Sub(a.begun); {
	case a.cancelled:
		m.Status, m.LastUpdateDateTimeUTC = "Cancelled", m.CancellationDateTimeUTC
	case age < step:
		m.Status = "Pending"
	case age < 2*step:
		m.Status = "InProgress"
	default:
		m.Status, m.LastUpdateDateTimeUTC = "Succeeded", at(a.begun.Add(2*step))
	}
	m.Commands = slices.Clone(m.Commands)
	for i := range m.Commands {
		m.Commands[i].CommandStatus = "Created"
		if m.Status == "Succeeded" {
			m.Commands[i].CommandStatus = "Completed"
			m.Commands[i].StartTime, m.Commands[i].EndTime = at(a.begun.Add(step)), at(a.begun.Add(2*step))
		}
	}
	return m
}

// active tells whether the action still runs.
func active(m machineAction) bool { return m.Status == "Pending" || m.Status == "InProgress" }

func actionHandlers() map[string]handler {
	type spec struct {
		kind    string
		windows bool
		read    func(fields, *machineAction) *problem
	}
	all := map[string]handler{
		"machineactions.list": list(collection{name: "MachineActions"}, func(c *call) ([]machineAction, error) {
			var out []machineAction
			for _, a := range snapshot(c.fleet, &c.fleet.actions) {
				out = append(out, a.view(c.now, c.sim.cfg.ActionTime))
			}
			return out, nil
		}),
		"machineactions.get": one("MachineActions", func(c *call) (machineAction, error) {
			a, p := c.action()
			return a, orNil(p)
		}),
		"machineactions.cancel":                            cancelAction,
		"machineactions.getPackageUri":                     packageURI,
		"machineactions.getLiveResponseResultDownloadLink": liveResponseLink,
		"machines.runliveresponse":                         runLiveResponse,
		"machines.startInvestigation":                      startInvestigation,
	}
	for id, sp := range map[string]spec{
		"machines.isolate": {kind: "Isolate", read: func(f fields, m *machineAction) *problem {
			scope, p := f.oneOf("IsolationType", "Full", "Full", "Selective", "UnManagedDevice")
			m.Scope = optional(scope)
			return p
		}},
		"machines.unisolate":                   {kind: "Unisolate"},
		"machines.restrictCodeExecution":       {kind: "RestrictCodeExecution", windows: true},
		"machines.unrestrictCodeExecution":     {kind: "UnrestrictCodeExecution", windows: true},
		"machines.collectInvestigationPackage": {kind: "CollectInvestigationPackage"},
		"machines.offboard":                    {kind: "Offboard", windows: true},
		"machines.runAntiVirusScan": {kind: "RunAntiVirusScan", read: func(f fields, m *machineAction) *problem {
			scope, p := f.oneOf("ScanType", "", "Quick", "Full")
			m.Scope = optional(scope)
			return p
		}},
		"machines.stopAndQuarantineFile": {kind: "StopAndQuarantineFile", windows: true, read: func(f fields, m *machineAction) *problem {
			sum, p := f.need("Sha1")
			if p == nil && !isHex(sum, 40) {
				p = problemf(http.StatusBadRequest, "InvalidHashValue", "Hash value %s is invalid.", sum)
			}
			m.RelatedFileInfo = &relatedFile{sum, "Sha1"}
			return p
		}},
	} {
		all[id] = func(c *call) (reply, error) {
			m, p := c.fleet.machine(c.id())
			if p != nil {
				return reply{}, p
			}
			f, p := c.object()
			if p != nil {
				return reply{}, p
			}
			text, p := f.need("Comment")
			if p != nil {
				return reply{}, p
			}
			a := newAction(c, m, sp.kind, text)
			if sp.read != nil {
				if p := sp.read(f, &a); p != nil {
					return reply{}, p
				}
			}
			if sp.windows && !platformNamed(m.OSPlatform).windows() {
				return reply{}, problemf(http.StatusBadRequest, "OsPlatformNotSupported", "OS platform %s is not supported for %s.", m.OSPlatform, sp.kind)
			}
			return c.begin(a)
		}
	}
	return all
}

func newAction(c *call, m machine, kind, comment string) machineAction {
	return machineAction{
		ID: uuid.NewString(), Type: kind, Requestor: c.who.name(), RequestorComment: comment, MachineID: m.ID,
		ComputerDNSName: m.ComputerDNSName, CreationDateTimeUTC: at(c.now), RequestSource: "PublicApi", Commands: []commandResult{},
	}
}

// begin keeps a new action and answers 201 with it. The same kind of action may
// run only once on a machine.
func (c *call) begin(m machineAction) (reply, error) {
	a := action{machineAction: m, begun: c.now}
	if p := c.fleet.addAction(a, c.now, c.sim.cfg.ActionTime); p != nil {
		return reply{}, p
	}
	out, err := created(c, "MachineActions", a.view(c.now, c.sim.cfg.ActionTime))
	out.location = hosts["mde"] + "/api/machineactions/" + m.ID
	return out, err
}

func (f *fleet) addAction(a action, now time.Time, step time.Duration) *problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, other := range f.actions {
		if other.MachineID == a.MachineID && other.Type == a.Type && active(other.view(now, step)) {
			return problemf(http.StatusBadRequest, "ActiveRequestAlreadyExists", "Action is already in progress.")
		}
	}
	if a.Type == "Offboard" {
		f.machines = slices.Clone(f.machines)
		f.machines[f.machineAt[a.MachineID]].HealthStatus = "Inactive"
	}
	// The oldest go when there are too many, as they do after 180 days.
	kept := f.actions
	if len(kept) >= maxAdded {
		kept = kept[1:]
	}
	f.actions = append(slices.Clip(kept), a)
	return nil
}

// action finds the action that the path names.
func (c *call) action() (machineAction, *problem) {
	for _, a := range snapshot(c.fleet, &c.fleet.actions) {
		if strings.EqualFold(a.ID, c.id()) {
			return a.view(c.now, c.sim.cfg.ActionTime), nil
		}
	}
	return machineAction{}, notFound("machine action", c.id())
}

func cancelAction(c *call) (reply, error) {
	m, p := c.action()
	if p != nil {
		return reply{}, p
	}
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	text, p := f.need("Comment")
	if p != nil {
		return reply{}, p
	}
	if !active(m) {
		return reply{}, problemf(http.StatusBadRequest, "BadRequest", "Action %s is %s and cannot be cancelled.", m.ID, m.Status)
	}
	c.fleet.mu.Lock()
	c.fleet.actions = slices.Clone(c.fleet.actions)
	for i := range c.fleet.actions {
		if a := &c.fleet.actions[i]; a.ID == m.ID {
			a.cancelled = true
			a.CancellationRequestor, a.CancellationComment, a.CancellationDateTimeUTC = optional(c.who.name()), optional(text), at(c.now)
			m = a.view(c.now, c.sim.cfg.ActionTime)
		}
	}
	c.fleet.mu.Unlock()
	return entity(c, "MachineActions", m)
}

func packageURI(c *call) (reply, error) {
	m, p := c.action()
	if p != nil {
		return reply{}, p
	}
	if m.Type != "CollectInvestigationPackage" {
		return reply{}, problemf(http.StatusBadRequest, "BadRequest", "Action %s is of type %s and has no package.", m.ID, m.Type)
	}
	if m.Status != "Succeeded" {
		return reply{}, notFound("package of machine action", m.ID)
	}
	return scalar(c, "Edm.String", c.sim.blobLink("packages/"+c.fleet.tenantID+"/"+m.ID+".zip", c.now, 10*time.Minute))
}

func liveResponseLink(c *call) (reply, error) {
	m, p := c.action()
	if p != nil {
		return reply{}, p
	}
	text := c.argument("index")
	index, err := strconv.Atoi(text)
	if err != nil || index < 0 {
		return reply{}, invalidInput("Invalid input index: '%s'.", text)
	}
	if m.Type != "LiveResponse" || index >= len(m.Commands) || m.Commands[index].CommandStatus != "Completed" {
		return reply{}, notFound("live response result", fmt.Sprintf("%d of machine action %s", index, m.ID))
	}
	// Thirty minutes are documented.
	name := fmt.Sprintf("liveresponse/%s/%s/%d/%s.json", c.fleet.tenantID, m.ID, index, m.Commands[index].Command.Type)
	return scalar(c, "Edm.String", c.sim.blobLink(name, c.now, 30*time.Minute))
}

// commandOrder is the order in which a session may use its kinds of command,
// with the parameter that each needs.
var commandOrder = []struct{ kind, key string }{{"PutFile", "FileName"}, {"RunScript", "ScriptName"}, {"GetFile", "Path"}}

// maxCommands bounds a session; the page says ten.
const maxCommands = 10

func runLiveResponse(c *call) (reply, error) {
	m, p := c.fleet.machine(c.id())
	if p != nil {
		return reply{}, p
	}
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	var commands []command
	if ok, p := f.read("Commands", &commands); p != nil {
		return reply{}, p
	} else if !ok || len(commands) == 0 {
		return reply{}, missing("Commands")
	}
	if len(commands) > maxCommands {
		return reply{}, problemf(http.StatusBadRequest, "MaximumBatchSizeExceeded", "Maximum batch size exceeded. Received: %d, allowed: %d.", len(commands), maxCommands)
	}
	text, p := f.text("Comment")
	if p != nil {
		return reply{}, p
	}
	a := newAction(c, m, "LiveResponse", text)
	last := 0
	for i, one := range commands {
		at := -1
		for j, o := range commandOrder {
			if o.kind == one.Type {
				at = j
			}
		}
		if at < 0 {
			return reply{}, invalidInput("Invalid input Commands: type '%s' is not one of PutFile, RunScript, GetFile.", one.Type)
		}
		if at < last {
			return reply{}, invalidInput("Invalid input Commands: the order is PutFile, RunScript, GetFile.")
		}
		last = at
		if !slices.ContainsFunc(one.Params, func(p param) bool { return p.Key == commandOrder[at].key && p.Value != "" }) {
			return reply{}, missing(commandOrder[at].key)
		}
		a.Commands = append(a.Commands, commandResult{Index: i, Errors: []string{}, Command: one})
	}
	return c.begin(a)
}

func startInvestigation(c *call) (reply, error) {
	m, p := c.fleet.machine(c.id())
	if p != nil {
		return reply{}, p
	}
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	if _, p := f.need("Comment"); p != nil {
		return reply{}, p
	}
	fl := c.fleet
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if p := full(fl.investigations[min(len(fl.investigations), c.sim.cfg.Alerts):]); p != nil {
		return reply{}, p
	}
	fl.nextID++
	in := investigation{ID: strconv.FormatInt(fl.nextID, 10), StartTime: at(c.now), State: "Running", MachineID: m.ID,
		ComputerDNSName: m.ComputerDNSName}
	for _, a := range fl.alerts {
		if a.MachineID == m.ID {
			in.TriggeringAlertID = a.ID
			break
		}
	}
	fl.investigations = append(slices.Clip(fl.investigations), in)
	out, err := created(c, "Investigations", in)
	out.location = hosts["mde"] + "/api/investigations/" + url.PathEscape(in.ID)
	return out, err
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		c := s[i] | 0x20
		if !isDigit(s[i]) && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
