/* The first process of a pod or of a box, and the keeper of a box. Static, no library but libc.
 *
 *   init                                     As pid 1 of a pod (the "pause" container): reaps orphans until TERM or INT.
 *   init box PIDFILE CLEANUP SETUP ARGS...   Makes mount, net, pid, uts and ipc namespaces. In them pid 1 runs SETUP once and then reaps
 *       orphans. Outside stays the keeper: it ends the box when standard output loses its last reader (a pipe held by
 *       whoever the box must not outlive), and when the box has ended, however it did, becomes CLEANUP. The caller returns once PIDFILE
 *       holds "KEEPER BOX", both process ids as seen outside. Standard input is passed to SETUP.
 * If the keeper is killed, the box goes with it; CLEANUP is then up to whoever finds PIDFILE. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal) { _exit(128 + signal); }

static void reap(int signal)
{
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0) {
	}
}

static void reap_forever(void)
{
	struct sigaction action = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
	sigaction(SIGCHLD, &action, NULL);
	signal(SIGTERM, leave);
	signal(SIGINT, leave);
	reap(0);
	for (;;)
		pause();
}

static void to_null(int descriptor, int flags)
{
	int null = open("/dev/null", flags | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, descriptor);
		close(null);
	}
}

static void first_in_box(int go, char **setup)
{
	char byte;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(go, &byte, 1) != 1)
		_exit(1); /* the keeper is gone already */
	close(go);
	setsid();
	dup2(STDERR_FILENO, STDOUT_FILENO);
	if (fork() == 0) {
		execvp(setup[0], setup);
		perror(setup[0]);
		_exit(127);
	}
	to_null(STDIN_FILENO, O_RDONLY);
	reap_forever();
}

static int keep(int begun, const char *pidfile, char *cleanup, char **setup)
{
	int go[2];
	if (pipe2(go, O_CLOEXEC))
		return perror("pipe"), 1;
	setsid();
	long box = syscall(SYS_clone, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0);
	if (box < 0)
		return perror("cannot make namespaces"), 1;
	if (box == 0) {
		close(go[1]);
		close(begun);
		first_in_box(go[0], setup);
	}
	close(go[0]);
	to_null(STDIN_FILENO, O_RDONLY);
	int ended = syscall(SYS_pidfd_open, box, 0);
	FILE *file = fopen(pidfile, "w");
	if (ended < 0 || !file || fprintf(file, "%d %ld\n", getpid(), box) < 0 || fclose(file)) {
		perror(pidfile);
		kill(box, SIGKILL);
		return 1;
	}
	if (write(go[1], "x", 1) != 1 || write(begun, "x", 1) != 1)
		kill(box, SIGKILL);
	close(go[1]);
	close(begun);
	struct pollfd watched[2] = {{.fd = ended, .events = POLLIN}, {.fd = STDOUT_FILENO, .events = 0}};
	for (;;) {
		poll(watched, 2, -1);
		if (watched[0].revents)
			break;
		if (watched[1].revents) {
			kill(box, SIGKILL);
			watched[1].fd = -1;
		}
	}
	waitpid(box, NULL, 0);
	to_null(STDOUT_FILENO, O_WRONLY);
	execl("/bin/sh", "sh", cleanup, (char *)NULL);
	return 1;
}

int main(int count, char **words)
{
	if (count == 1)
		reap_forever();
	if (count < 5 || strcmp(words[1], "box")) {
		fprintf(stderr, "usage: init | init box PIDFILE CLEANUP SETUP ARGS...\n");
		return 2;
	}
	/* The keeper is a child of a child, so that it is nobody's zombie later; the pipe tells whether it began. */
	int begun[2];
	char byte;
	if (pipe2(begun, O_CLOEXEC))
		return perror("pipe"), 1;
	pid_t keeper = fork();
	if (keeper < 0)
		return perror("fork"), 1;
	if (keeper == 0) {
		close(begun[0]);
		_exit(keep(begun[1], words[2], words[3], words + 4));
	}
	close(begun[1]);
	return read(begun[0], &byte, 1) == 1 ? 0 : 1;
}
