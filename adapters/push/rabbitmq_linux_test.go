package push_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// logTail is how much of a broker's log a failed test shows: its last start and stop.
const logTail = 16 << 10

// rabbit is a RabbitMQ of Debian's on the loopback interface, with everything of its own
// in one folder.
type rabbit struct {
	t      *testing.T
	dir    string
	url    string
	env    []string
	names  *exec.Cmd // epmd, by which Erlang's nodes find each other
	server *exec.Cmd
}

func newRabbit(t *testing.T) *rabbit {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	epmd, err := exec.LookPath("epmd")
	if len(found) == 0 || err != nil {
		t.Skip("SKIPPED: RabbitMQ absent, install rabbitmq-server")
	}
	slices.Sort(found)
	r := &rabbit{t: t, dir: t.TempDir()}
	t.Cleanup(r.tell)
	ports := freePorts(t, 3)
	r.url = "amqp://127.0.0.1:" + ports[0] + "/"
	r.env = append(os.Environ(), "HOME="+r.dir, "ERL_EPMD_PORT="+ports[1], "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=crossroads@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+ports[0], "RABBITMQ_DIST_PORT="+ports[2],
		"RABBITMQ_MNESIA_BASE="+filepath.Join(r.dir, "data"), "RABBITMQ_LOG_BASE="+filepath.Join(r.dir, "log"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(r.dir, "plugins"), "RABBITMQ_CONFIG_FILE="+filepath.Join(r.dir, "rabbitmq"),
		"RABBITMQ_PID_FILE="+filepath.Join(r.dir, "pid"), "RABBITMQ_CONF_ENV_FILE=/dev/null")
	r.names = r.command(epmd, "-address", "127.0.0.1", "-port", ports[1])
	if err := r.names.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(r.names) })
	r.server = r.command(found[len(found)-1])
	r.start()
	t.Cleanup(func() { r.kill() })
	return r
}

// command runs in a group of its own, so that what it starts ends with it.
func (r *rabbit) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir, c.Env = r.dir, r.env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return c
}

func end(c *exec.Cmd) {
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	_ = c.Wait()
}

func (r *rabbit) kill() { end(r.server) }

// restart ends the broker in order and starts it again. A queue that was declared before
// is then one of long standing, as an institution's is. RabbitMQ answers a declaration
// while the last that its database writes of it is still in memory: killed up to seconds
// later, it comes back without the queue, and without what it had confirmed into it.
func (r *rabbit) restart() {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	if err != nil {
		r.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	_ = r.server.Wait()
	r.start()
}

// tell shows the end of what the broker said, when the test failed.
func (r *rabbit) tell() {
	if !r.t.Failed() {
		return
	}
	said, _ := filepath.Glob(filepath.Join(r.dir, "log", "*.log"))
	for _, name := range append(said, filepath.Join(r.dir, "out")) {
		text, err := os.ReadFile(name)
		r.t.Logf("the end of %s (%v):\n%s", filepath.Base(name), err, text[max(0, len(text)-logTail):])
	}
}

// start starts the broker, again after kill, and waits until it answers.
func (r *rabbit) start() {
	r.t.Helper()
	r.server = r.command(r.server.Path)
	log, err := os.OpenFile(filepath.Join(r.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	r.server.Stdout, r.server.Stderr = log, log
	if err := r.server.Start(); err != nil {
		r.t.Fatal(err)
	}
	for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		conn, err := amqp.Dial(r.url)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(until) {
			r.t.Fatalf("rabbitmq-server does not answer: %v", err)
		}
	}
}

// with lends a channel of a connection.
func (r *rabbit) with(use func(*amqp.Channel) error) {
	r.t.Helper()
	conn, err := amqp.Dial(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	c, err := conn.Channel()
	if err == nil {
		err = use(c)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rabbit) queue(name string) {
	r.t.Helper()
	r.with(func(c *amqp.Channel) error {
		_, err := c.QueueDeclare(name, true, false, false, false, nil)
		return err
	})
}

// take gives all that lies in a queue.
func (r *rabbit) take(queue string) (all []amqp.Delivery) {
	r.t.Helper()
	r.with(func(c *amqp.Channel) error {
		for {
			d, ok, err := c.Get(queue, true)
			if err != nil || !ok {
				return err
			}
			all = append(all, d)
		}
	})
	return all
}

func freePorts(t *testing.T, n int) (ports []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	}
	return ports
}
