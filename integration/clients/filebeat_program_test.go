//go:build clients

package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"defender-proxy/internal/simulator"
)

// shipper is a running Filebeat.
type shipper struct {
	t       *testing.T
	cmd     *exec.Cmd
	stderr  *output
	data    string // the folder of its registry
	events  string // the file that it writes events to
	ended   chan struct{}
	stopped sync.Once
}

// filebeatBinary is the path of Filebeat, which is built once.
var filebeatBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "filebeat.exe")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir, build.Env = "filebeat", append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Filebeat: %w\n%s", err, out)
	}
	return path, nil
})

// startFilebeat runs Filebeat with settings of ours, for one cycle: the next one is
// a day away. It ends with the test at the latest.
func startFilebeat(l *lab, env []string, args ...string) *shipper {
	l.t.Helper()
	path, err := filebeatBinary()
	if err != nil {
		l.t.Fatal(err)
	}
	s := &shipper{t: l.t, stderr: new(output), data: l.t.TempDir(), events: l.t.TempDir(), ended: make(chan struct{})}
	if i := slices.Index(args, "--path.data"); i >= 0 {
		s.data = args[i+1]
	}
	// A checkout may belong to anybody: Filebeat wants settings that are its user's.
	s.cmd = exec.Command(path, slices.Concat([]string{
		"-e", "--strict.perms=false", "--path.home", "filebeat", "--path.config", "filebeat", "--path.data", s.data, "--path.logs", s.data,
	}, args)...)
	s.cmd.Env = slices.Concat([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.data, "CA_FILE=" + l.caFile, "INTERVAL=24h", "OUTPUT=" + s.events,
		"TENANT_ID=" + simulator.DefaultTenantID, "CLIENT_ID=" + filebeatID, "CLIENT_SECRET=" + filebeatSecret,
	}, env)
	s.cmd.Stderr = s.stderr
	if err := s.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // how it ended is in ProcessState
		close(s.ended)
	}()
	l.t.Cleanup(func() { s.stop("") })
	return s
}

// wait gives the events as Microsoft wrote them, once there are n and Filebeat says
// that its cycle has ended.
func (s *shipper) wait(n int) []map[string]any {
	s.t.Helper()
	var all []map[string]any
	eventually(s.t, fmt.Sprintf("Filebeat has read %d events", n), func() error {
		all = nil
		text, _ := os.ReadFile(filepath.Join(s.events, "filebeat")) // it is there once something is in it
		for line := range bytes.Lines(text[:bytes.LastIndexByte(text, '\n')+1]) {
			var event struct {
				Message string
				JSON    map[string]any
			}
			if err := json.Unmarshal(line, &event); err != nil {
				s.t.Fatalf("an event is not JSON: %v: %s", err, line)
			}
			if event.JSON == nil {
				if err := json.Unmarshal([]byte(event.Message), &event.JSON); err != nil {
					s.t.Fatalf("an event's message is not JSON: %v: %s", err, line)
				}
			}
			all = append(all, event.JSON)
		}
		log := s.stderr.String()
		if len(all) < n || !strings.Contains(log, "request finished") {
			return fmt.Errorf("there are %d; its log:\n%s", len(all), log[max(0, len(log)-4<<10):])
		}
		return nil
	})
	if len(all) != n {
		s.t.Errorf("Filebeat read %d events, want %d", len(all), n)
	}
	return all
}

// cursorOf is the text that the registry has once an event is behind.
func cursorOf(field string, event map[string]any) string {
	text, _ := event[field].(string)
	return text
}

// stop asks Filebeat to end when its registry holds a cursor; "" for any.
func (s *shipper) stop(cursor string) {
	s.t.Helper()
	s.stopped.Do(func() {
		if cursor != "" {
			eventually(s.t, "the registry holds the cursor "+cursor, func() error {
				text, err := os.ReadFile(filepath.Join(s.data, "registry", "filebeat", "log.json"))
				if err == nil && !bytes.Contains(text, []byte(cursor)) {
					err = fmt.Errorf("it ends with %s", text[max(0, len(text)-500):])
				}
				return err
			})
		}
		if err := s.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.t.Errorf("end Filebeat: %v", err)
		}
		select {
		case <-s.ended:
		case <-time.After(patience):
			_ = s.cmd.Process.Kill()
			<-s.ended
			s.t.Errorf("Filebeat did not end within %v", patience)
		}
		if code := s.cmd.ProcessState.ExitCode(); code != 0 {
			s.t.Errorf("Filebeat ended with %d\n%s", code, s.stderr)
		}
	})
}

// network is the address of a proxy of HTTP's that leads Microsoft's names to the
// lab, as a hosts file would. It ends with the test.
func (l *lab) network() string {
	l.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { l.tunnel(c) })
		}
	})
	l.t.Cleanup(func() {
		listener.Close()
		open.Wait()
	})
	return listener.Addr().String()
}

// tunnel answers one CONNECT.
func (l *lab) tunnel(c net.Conn) {
	defer c.Close()
	var request []byte
	for one := make([]byte, 1); !bytes.HasSuffix(request, []byte("\r\n\r\n")) && len(request) < 4096; request = append(request, one...) {
		if _, err := io.ReadFull(c, one); err != nil {
			return
		}
	}
	line, _, _ := strings.Cut(string(request), "\r\n")
	target, isConnect := strings.CutPrefix(line, "CONNECT ")
	name, _, _ := strings.Cut(target, ":")
	if !isConnect || !slices.Contains(microsoftNames, name) {
		fmt.Fprint(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	up, err := net.Dial("tcp", l.host())
	if err != nil {
		return
	}
	fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, up) // ends when either side does
		c.Close()
	})
	_, _ = io.Copy(up, c)
	up.Close()
	back.Wait()
}
