#!/usr/bin/env bash
# A SLURM of one node with two processors on this machine, for tests: all of it lies in one folder, and nothing that runs or is configured here is touched.
#
#   benchmarks/slurm.sh start FOLDER     prints the path of its slurm.conf, which SLURM_CONF must name to speak to it
#   benchmarks/slurm.sh controller FOLDER     stops the controller and starts it again
#   benchmarks/slurm.sh stop FOLDER
#
# Needs root, and Debian's packages slurm-wlm and munge; says in one line what is missing, with status 3. Jobs of the partition "urgent" preempt others.
set -euo pipefail
task=$1 folder=$(realpath -m "$2")
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin:/sbin

missing() { echo "no SLURM can be set up here: $1" >&2; exit 3; }
# Only what this script has started: each wrote its number into this folder.
end() { if [ -e "$folder/$1.pid" ]; then kill "-${2:-TERM}" "$(cat "$folder/$1.pid")" 2>/dev/null || true; fi; }
gone() { for _ in $(seq 300); do case $(ps -o stat= -p "$1") in "" | Z*) return 0 ;; esac; sleep 0.1; done; return 1; }
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }
# A controller that has just begun answers before it knows its node again.
ready() { for _ in $(seq 300); do sinfo -h -o %t 2>/dev/null | grep -qE '^(idle|mix|alloc)' && return 0; sleep 0.2; done; cat "$folder"/*.log >&2; return 1; }

start() {
    [ "$(id -u)" = 0 ] || missing "it needs root"
    for name in munged slurmctld slurmd sbatch; do command -v "$name" >/dev/null || missing "$name is not installed (packages slurm-wlm and munge)"; done
    mkdir -p "$folder"/{state,spool} && chmod 755 "$folder"
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
    cat >"$SLURM_CONF" <<-CONF
		ClusterName=sswp
		SlurmctldHost=$(hostname -s)(127.0.0.1)
		SlurmUser=root
		AuthType=auth/munge
		# a job that was requeued waits until its credential has expired: two minutes, if nothing is said
		AuthInfo=socket=$folder/munge.socket,cred_expire=5
		SlurmctldPort=$(port)
		SlurmdPort=$(port)
		SlurmctldPidFile=$folder/slurmctld.pid
		SlurmdPidFile=$folder/slurmd.pid
		SlurmctldLogFile=$folder/slurmctld.log
		SlurmdLogFile=$folder/slurmd.log
		StateSaveLocation=$folder/state
		SlurmdSpoolDir=$folder/spool
		SwitchType=switch/none
		MpiDefault=none
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU
		SlurmdParameters=config_overrides
		AccountingStorageType=accounting_storage/none
		JobAcctGatherType=jobacct_gather/none
		PreemptType=preempt/partition_prio
		PreemptMode=REQUEUE
		SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
		ReturnToService=2
		KillWait=30
		NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
		PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
		PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
	CONF
    slurmctld -c
    slurmd -c
    ready
    echo "$SLURM_CONF"
}

controller() {
    number=$(cat "$folder/slurmctld.pid")
    end slurmctld && gone "$number"
    slurmctld
    ready
}

stop() {
    scancel --user=root 2>/dev/null || true
    for _ in $(seq 100); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.2; done
    for name in slurmd slurmctld munged; do
        number=$(cat "$folder/$name.pid" 2>/dev/null) || continue
        end "$name" && gone "$number"
    done
}

"$task"
