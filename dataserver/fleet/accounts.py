"""The accounts and groups of a machine on which agents upload.

A system administrator finds these names in every file that we write; they are not settings.
"""

from __future__ import annotations

#: Runs the instances and owns what they leave behind.
SERVICE_USER = "dataserver"
SERVICE_GROUP = "dataserver"
#: Those who may put files into the drop directories; the service user is in it, to read them.
UPLOAD_GROUP = "dataserver-upload"
#: Agents whose scp speaks SFTP (OpenSSH 9.0 and later), and sftp: in a chroot.
UPLOAD_USER = "dataserver-upload"
#: Agents whose scp speaks the old protocol (before OpenSSH 9.0, or ``scp -O``).
SCP_USER = "dataserver-scp"

#: A drop directory where there are such accounts: the group may write and enter but not list,
#: and new files get the group, so that the service user can read them.
DATA_IN_MODE = 0o2730
#: What uploaded files must not have: of owner only writing stays, of the group only reading.
UPLOAD_UMASK = 0o537
