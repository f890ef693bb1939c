//! One exploration. In: a setting. Out: its world. Left to others: what may happen in it (`may`), doing it (`act`, `kubelet`, `control`).

use crate::intern::Machines;
use crate::setting::Setting;

/// One exploration: its setting and its machines.
pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) machines: Machines,
}

impl World {
    pub(crate) fn new(setting: Setting) -> Self {
        let machines = Machines::new(&setting);
        Self { setting, machines }
    }
}
