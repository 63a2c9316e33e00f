#!/bin/sh
# An agent's whole side: makes a packet, keeps it, uploads what waits with scp.  See README.md.
#
#   agent.sh -f CONF                  one packet, for cron
#   agent.sh -f CONF --every SECONDS  one after another, for a service
#   agent.sh -f CONF --print          show a packet, keep and send nothing
#
# Exit codes: 0 all is sent (or another run is sending), 1 packets wait because they cannot be
# sent, 2 wrong usage or settings, 3 no packet could be made.

# Decimal points, the order of names and what a character is must not depend on the user.
LC_ALL=C
export LC_ALL
umask 077
set -fu # no word below is a pattern; the two that are say so

# Settings.  CONF, a file of shell assignments, changes them.
NAME=$(uname -n)                       # the agent's name
SERVER=                                # the data server: a host name or an address
PORT=22                                # its SSH port
ACCOUNT=dataserver-upload              # the account there that takes uploads
TARGET=/data_in/                       # where it takes them
KEY=                                   # private key; empty: what ssh finds by itself
KNOWN_HOSTS=                           # file with the server's host key; empty: ssh's own
SCP=scp
SCP_OPTIONS=                           # more for scp: -O where the server takes no SFTP
OUTGOING=/var/spool/dataserver-agent   # where packets wait
MAX_FILES=1000                         # more do not wait: the oldest go
MAX_BYTES=10000000                     # nor more bytes in all
TRIES=3                                # failed uploads after which a run gives up
PAUSE=5                                # seconds after the first of them, then twice as many
LIMIT=120                              # seconds that an upload may take, where there is timeout(1)
INTERVAL=300                           # seconds between packets
ZONE=                                  # the server's time zone, as in TZ; empty: ours is the same
DISKS=/                                # mount points to tell of
PROCESSES=                             # programs that have to run
more_modules() { :; }                  # what else to tell: may be defined in CONF

say() { printf 'agent.sh: %s\n' "$(printf '%s' "$*" | tr '\001-\037\177' ' ')" >&2; }
refuse() {
    say "$*"
    exit 2
}
is_count() { case $1 in '' | *[!0-9]* | 0?* | ?????????????*) return 1 ;; esac; }

# -- a packet ---------------------------------------------------------------------------------

# Without what no XML may hold: control characters, and U+FFFE and U+FFFF in UTF-8.
clean() {
    awk '{ gsub(/[\001-\010\013\014\016-\037]/, ""); gsub(/\357\277[\276\277]/, ""); print }'
}
# A text inside CDATA: what would end it is split between two of them.
cdata() { printf '%s\n' "$1" | clean | sed 's/]]>/]]]]><![CDATA[>/g'; }
# A text inside an attribute in single quotes.
attribute() {
    printf '%s' "$1" | tr '\t\r\n' '   ' | clean | sed "s/&/\&amp;/g; s/</\&lt;/g; s/'/\&#39;/g"
}

# module NAME TYPE VALUE [UNIT]: print one module; nothing where there is no value.
module() {
    [ -n "$3" ] || return 0
    printf '<module>\n<name><![CDATA[%s]]></name>\n<type>%s</type>\n' "$(cdata "$1")" "$2"
    [ -z "${4-}" ] || printf '<unit><![CDATA[%s]]></unit>\n' "$(cdata "$4")"
    printf '<data><![CDATA[%s]]></data>\n</module>\n' "$(cdata "$3")"
}

load() { cat /proc/loadavg 2>/dev/null || uptime | sed 's/.*averages*: *//'; }
free_memory() {
    [ ! -r /proc/meminfo ] || awk '/^MemFree:/ { free = $2 } /^MemAvailable:/ { available = $2 }
        END { printf "%.0f", (available ? available : free) / 1024 }' /proc/meminfo
}
free_disk() { df -kP "$1" | awk 'NR == 2 && $(NF-4) { printf "%.2f", 100 * $(NF-2) / $(NF-4) }'; }
uptime_seconds() { [ ! -r /proc/uptime ] || sed 's/[. ].*//' /proc/uptime; }
running() { ps -A -o comm= | sed 's|.*/||; s/ *$//'; }

modules() {
    module 'Load Average' generic_data "$(load | sed 's/[, ].*//')"
    module 'Free Memory' generic_data "$(free_memory)" MB
    module Uptime generic_data "$(uptime_seconds)" s
    for each in $DISKS; do
        module "Disk_$each" generic_data "$(free_disk "$each")" %
    done
    for each in $PROCESSES; do
        module "Process $each" generic_proc \
            "$(running | awk -v name="$each" '
                $0 == name || $0 == substr(name, 1, 15) { up = 1 } # Linux knows no more of it
                END { if (NR) print up + 0 }')"
    done
    (set +fu && more_modules) # whatever it does, the packet goes on
}

# Sets $now, epoch seconds, and $timestamp, the same in words.
look_at_clock() {
    # shellcheck disable=SC2046 # words are wanted
    set -- $(date '+%s %Y/%m/%d %H:%M:%S')
    now=$1 timestamp="$2 $3"
}

packet() {
    printf "<?xml version='1.0' encoding='UTF-8'?>\n"
    printf "<agent_data agent_name='%s' " "$(attribute "$NAME")"
    printf "timestamp='%s' interval='%s' " "$timestamp" "$INTERVAL"
    printf "os_name='%s' " "$(attribute "$(uname -s)")"
    printf "os_version='%s' version='1.0'>\n" "$(attribute "$(uname -r)")"
    modules
    printf '</agent_data>\n'
}

# The files' name, which file systems and scp must take as it is: the agent's, or its bytes in hex.
stem() {
    case $NAME in
    [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) printf '%.100s' "$NAME" | od -A n -v -t x1 | tr -d ' \n' ;;
    *) printf '%.200s' "$NAME" ;;
    esac
}

# Make a packet and put it with those that wait, whole or not at all.
make_packet() {
    content=$(packet)
    { printf '%s\n' "$content" >"$new"; } 2>/dev/null
    # scp takes the mode along: a file that only its owner may read, the server could not.
    chmod 644 "$new" 2>/dev/null
    [ "$(tail -n 1 "$new" 2>/dev/null)" = '</agent_data>' ] || return 1
    # A second packet in the same second gets the next number: under the same name it might
    # overwrite the first one on the server.  (If that is far ahead, the clock was set back.)
    number=$now
    last=$(cat "$OUTGOING/.last" 2>/dev/null)
    if is_count "$last" && [ "$last" -ge "$now" ] && [ "$last" -lt $((now + 3600)) ]; then
        number=$((last + 1))
    fi
    until ln "$new" "$OUTGOING/$stem.$number.data" 2>/dev/null; do
        [ -e "$OUTGOING/$stem.$number.data" ] || return 1 # no room even for a name
        number=$((number + 1))
    done
    { printf '%s\n' "$number" >"$OUTGOING/.last"; } 2>/dev/null
    return 0
}

# -- what waits -------------------------------------------------------------------------------

# Drop the oldest where there are too many.
trim() {
    set +f && set -- "$OUTGOING"/*.data && set -f
    [ -f "$1" ] || return 0
    bytes=$(cat "$@" 2>/dev/null | wc -c) dropped=0 # cat: another run may have removed one
    while [ $# -gt "$MAX_FILES" ] || { [ "$bytes" -gt "$MAX_BYTES" ] && [ $# -gt 1 ]; }; do
        # shellcheck disable=SC2002 # as above
        bytes=$((bytes - $(cat "$1" 2>/dev/null | wc -c))) dropped=$((dropped + 1))
        rm -f "$1"
        shift
    done
    [ "$dropped" = 0 ] || say "$dropped of the oldest packets dropped: no more than $MAX_FILES," \
        "or $MAX_BYTES bytes, may wait in $OUTGOING"
}

# Two runs that send at once would only send some packets twice, which the server counts once:
# so the lock may be this simple.  Where its owner is gone, or did not renew it, it is taken over.
lock() {
    sign || return 0 # a full disk: sending makes room
    if ln "$mine" "$OUTGOING/.lock" 2>/dev/null; then
        return 0
    fi
    read_lock
    if is_count "$owner" && is_count "$since" && kill -0 "$owner" 2>/dev/null &&
        [ $((now - since)) -lt 900 ] && [ $((since - now)) -lt 900 ]; then
        return 1
    fi
    renew
}
sign() { { printf '%s %s\n' $$ "$now" >"$mine"; } 2>/dev/null; }
renew() { rm -f "$mine" && sign && mv -f "$mine" "$OUTGOING/.lock"; }
unlock() {
    read_lock
    [ "$owner" != $$ ] || rm -f "$OUTGOING/.lock"
}
read_lock() { owner='' since='' && { read -r owner since <"$OUTGOING/.lock"; } 2>/dev/null; }

upload() {
    set -- -B -P "$PORT" ${KEY:+-i "$KEY" -o IdentitiesOnly=yes} \
        ${KNOWN_HOSTS:+-o "UserKnownHostsFile=$KNOWN_HOSTS"} -o StrictHostKeyChecking=yes \
        -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 \
        -- "$1" "$ACCOUNT@$host:$TARGET"
    # CONF's options come first: of those that contradict each other ssh takes the first.
    # shellcheck disable=SC2086 # words are wanted
    error=$($limit "$SCP" $SCP_OPTIONS "$@" 2>&1 >/dev/null)
}

# Send what waits, oldest first; a file goes only when scp says that it has arrived.
send() {
    failed=0 pause=$PAUSE
    while set +f && set -- "$OUTGOING"/*.data && set -f && [ -f "$1" ]; do
        look_at_clock
        renew 2>/dev/null
        upload "$1"
        code=$?
        if [ "$code" = 0 ]; then
            rm -f "$1" && continue
            say "cannot remove $1, which is sent"
            return 1
        fi
        [ -f "$1" ] || continue # dropped meanwhile, by another run
        failed=$((failed + 1))
        if [ "$failed" -ge "$TRIES" ]; then
            say "cannot send to $SERVER, packets waiting: $#: $(printf '%.300s' "$error") ($code)"
            return 1
        fi
        nap "$pause"
        [ "$pause" -ge 60 ] || pause=$((pause * 2))
    done
}

# -- runs -------------------------------------------------------------------------------------

# Sleeping in the background lets signals in.
nap() {
    sleep "$1" &
    sleeper=$!
    wait "$sleeper"
    sleeper=''
}

run() {
    status=0
    look_at_clock
    begun=$now
    if ! make_packet; then
        say "cannot keep a packet in $OUTGOING: is there room?"
        status=3
    fi
    rm -f "$new"
    trim
    if lock; then
        # Left behind by runs that were killed.
        find "$OUTGOING" -type f -name '.*.[0-9]*' -mtime +0 -exec rm -f {} +
        send || [ "$status" = 3 ] || status=1
        unlock
    fi
    rm -f "$mine"
    return "$status"
}

leave() {
    rm -f "$new" "$mine"
    unlock
    [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null
}

check() {
    [ -n "$NAME" ] || refuse "NAME is empty"
    for each in PORT MAX_FILES MAX_BYTES TRIES PAUSE LIMIT INTERVAL; do
        eval "is_count \"\$$each\"" || refuse "$each must be a whole number"
    done
    for each in MAX_FILES INTERVAL; do
        eval "[ \"\$$each\" -gt 0 ]" || refuse "$each must be 1 at least"
    done
    [ -z "$print" ] || return 0
    case $SERVER in '' | -* | *[!A-Za-z0-9.:_-]*) refuse "SERVER must be a host's name" ;; esac
    case $ACCOUNT in '' | -* | *[!A-Za-z0-9._-]*) refuse "ACCOUNT must be an account's name" ;; esac
    case $TARGET in '' | -* | *[!A-Za-z0-9./_~-]*) refuse "TARGET must be a plain path" ;; esac
    case $OUTGOING in /*) ;; *) refuse "OUTGOING must be a path that begins with /" ;; esac
    for each in "$KEY" "$KNOWN_HOSTS"; do
        [ -z "$each" ] || [ -r "$each" ] || refuse "cannot read $each"
    done
    command -v "$SCP" >/dev/null || refuse "$SCP is not installed"
}

conf='' every='' print='' sleeper=''
while [ $# -gt 0 ]; do
    case $1 in
    -f) conf=${2-} ;;
    --every) every=${2-0} ;;
    --print) print=yes ;;
    *) refuse "usage: agent.sh -f CONF [--every SECONDS | --print]" ;;
    esac
    [ $# = 1 ] || [ "$1" = --print ] || shift
    shift
done
exec </dev/null
[ -r "$conf" ] || refuse "cannot read the settings: -f '$conf'"
case $conf in */*) ;; *) conf=./$conf ;; esac # else it would be looked for like a program
# shellcheck disable=SC1090 # it is the user's
. "$conf"
INTERVAL=${every:-$INTERVAL}
[ -z "$ZONE" ] || { TZ=$ZONE && export TZ; }
check
if [ -n "$print" ]; then
    look_at_clock
    packet
    exit 0
fi

mkdir -p "$OUTGOING" 2>/dev/null
if [ ! -w "$OUTGOING" ]; then
    say "cannot write to $OUTGOING"
    exit 3
fi
stem=$(stem) new=$OUTGOING/.new.$$ mine=$OUTGOING/.lock.$$
case $SERVER in *:*) host="[$SERVER]" ;; *) host=$SERVER ;; esac
limit='' # not every system has timeout, and not every one that has it spells it so
! timeout 9 true 2>/dev/null || limit="timeout $LIMIT"
trap leave EXIT
for each in HUP INT TERM; do
    # shellcheck disable=SC2064 # the name of now
    trap "trap - EXIT $each; leave; kill -$each \$\$" "$each"
done

while :; do
    run
    status=$?
    [ -n "$every" ] || exit "$status"
    look_at_clock
    rest=$((begun + every - now))
    [ "$rest" -ge 1 ] || rest=1
    [ "$rest" -le "$every" ] || rest=$every # the clock was set back
    nap "$rest"
done
