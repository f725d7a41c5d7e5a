//! One scene for all tests of a suite that leave it as they found it. It lives as long as one of them
//! holds it, so that none of its processes outlives the suite.

use std::sync::{Arc, Weak};

use strongroom_tests::api::Api;
use strongroom_tests::stack::Plan;
use tokio::sync::Mutex;

use crate::scene::Scene;

/// Where the tests of a suite find their scene: a `static`.
pub(crate) struct SharedScene {
    change: fn(&mut Plan),
    running: Mutex<Weak<Scene>>,
}

impl SharedScene {
    /// The usual stack, but for what `change` does to its plan. The first test that asks starts it.
    pub(crate) const fn new(change: fn(&mut Plan)) -> Self {
        Self { change, running: Mutex::const_new(Weak::new()) }
    }

    /// The scene, and a caller of the test's own: a connection does not survive the runtime of the test
    /// that opened it, so the scene's own caller is nobody's.
    pub(crate) async fn enter(&self) -> (Arc<Scene>, Api) {
        let mut running = self.running.lock().await;
        let scene = match running.upgrade() {
            Some(scene) => scene,
            None => {
                let scene = Arc::new(Scene::planned(self.change).await);
                *running = Arc::downgrade(&scene);
                scene
            }
        };
        let api = scene.stack.caller().expect("a caller");
        (scene, api)
    }
}
